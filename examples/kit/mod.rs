//! What the scenes share: the command line, the window, colours, plots, the end, and a script that plays them.

use std::path::PathBuf;

use bevy::{
    log::LogPlugin,
    prelude::*,
    window::{PrimaryWindow, WindowPlugin, WindowResizeConstraints},
};
use bevy_candle::{CandleShutdown, CandleSystems, ModelKinds};
use clap::Parser;

mod display;
pub mod palette;
pub mod plot;
mod script;

pub use display::complaint;
use script::ScriptPlugin;

/// The size that the scenes are laid out for; larger windows have larger pixels.
const LAYOUT: Vec2 = Vec2::new(1280.0, 720.0);

/// Options that all scenes have.
#[derive(Parser, Clone)]
pub struct Options {
    /// The window in pixels, width x height
    #[arg(long, default_value = "1280x720", value_parser = size)]
    size: UVec2,
    /// Plays input from a file and saves screenshots; see `tools/screenshots.sh`
    #[arg(long)]
    script: Option<PathBuf>,
    /// Where a script's screenshots go
    #[arg(long, default_value = "target/screenshots")]
    shots: PathBuf,
}

fn size(text: &str) -> Result<UVec2, String> {
    let (width, height) = text.split_once('x').ok_or("width x height, as 1280x720")?;
    let side = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    Ok(UVec2::new(side(width)?, side(height)?))
}

/// A window with a camera, pixels that stay sharp, and a log.
pub struct KitPlugin {
    pub title: &'static str,
    pub options: Options,
}

impl Plugin for KitPlugin {
    fn build(&self, app: &mut App) {
        let window = Window {
            title: self.title.into(),
            resolution: self.options.size.into(),
            resize_constraints: WindowResizeConstraints {
                min_width: 640.0,
                min_height: 360.0,
                ..default()
            },
            ..default()
        };
        let window = WindowPlugin {
            primary_window: Some(window),
            ..default()
        };
        let log = LogPlugin {
            filter: "warn,bevy_candle=info,frame_stage=info,sprite_forge=info".into(),
            ..default()
        };
        app.add_plugins(
            DefaultPlugins
                .set(window)
                .set(log)
                .set(ImagePlugin::default_nearest()),
        )
        .insert_resource(ClearColor(palette::GROUND))
        .add_systems(Startup, add_camera)
        .add_systems(PreUpdate, fit_window)
        .add_systems(CandleShutdown, say_released.after(CandleSystems::Release));
        if let Some(file) = &self.options.script {
            let (file, shots) = (file.clone(), self.options.shots.clone());
            app.add_plugins(ScriptPlugin { file, shots });
        }
    }
}

fn add_camera(mut commands: Commands) {
    commands.spawn((Camera2d, Msaa::Off));
}

/// Grows with the window by half a pixel at a time, so that pixel art stays pixel art.
fn fit_window(mut scale: ResMut<UiScale>, windows: Query<&Window, With<PrimaryWindow>>) {
    let Ok(window) = windows.single() else { return };
    let fits = (window.resolution.size() / LAYOUT).min_element();
    let wanted = if fits >= 1.0 {
        (fits * 2.0).floor() / 2.0
    } else {
        fits.max(0.1)
    };
    if scale.0 != wanted {
        scale.0 = wanted;
    }
}

/// The last words: what every model gave back.
fn say_released(world: &mut World) {
    let kinds = world.resource::<ModelKinds>();
    for kind in kinds.iter() {
        let report = kind.status(world).and_then(|status| status.last_release);
        if let Some(report) = report {
            let megabytes = report.claimed as f64 / 1e6;
            let (name, took) = (kind.name(), report.duration);
            info!("{name}: the last release gave back {megabytes:.1} MB in {took:.1?}");
        }
    }
}
