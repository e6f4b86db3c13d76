//! What the scenes share: the command line, the window, colours, plots, the end, and a script that plays them.

use std::path::PathBuf;

use bevy::{
    log::LogPlugin,
    prelude::*,
    window::{PrimaryWindow, WindowPlugin, WindowResizeConstraints},
};
use bevy_candle::{CandleShutdown, CandleSystems, ModelKinds, ReleaseReport};
use clap::Parser;

pub mod canvas;
mod display;
pub mod palette;
pub mod plot;
mod script;

pub use display::{complain, complaint};
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
        .add_systems(
            CandleShutdown,
            (
                note_releases.before(CandleSystems::Release),
                say_released.after(CandleSystems::Release),
            ),
        );
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
    let fits = (window.resolution.physical_size().as_vec2() / LAYOUT).min_element();
    let pixels = if fits >= 1.0 {
        (fits * 2.0).floor() / 2.0
    } else {
        fits.max(0.1)
    };
    // Bevy multiplies by the screen's own factor.
    let wanted = pixels / window.scale_factor();
    if scale.0 != wanted {
        scale.0 = wanted;
    }
}

/// The releases before the end: what a model has given back by then is no news.
#[derive(Resource)]
struct Earlier(Vec<Option<ReleaseReport>>);

fn note_releases(world: &mut World) {
    let earlier = releases(world).map(|(_, report)| report).collect();
    world.insert_resource(Earlier(earlier));
}

/// The last words: what every model gave back. Of one that did not in time, the crate itself warns.
fn say_released(world: &mut World) {
    let earlier = &world.resource::<Earlier>().0;
    for ((name, report), earlier) in releases(world).zip(earlier) {
        match report.filter(|_| report != *earlier) {
            Some(report) => {
                let (bytes, took) = (report.freed.unwrap_or(report.claimed), report.duration);
                info!(
                    "{name}: the end gave back {:.1} MB in {took:.1?}",
                    bytes as f64 / 1e6
                );
            }
            None => info!("{name}: the end gave back nothing"),
        }
    }
}

fn releases(world: &World) -> impl Iterator<Item = (&str, Option<ReleaseReport>)> {
    world.resource::<ModelKinds>().iter().map(|kind| {
        let status = kind.status(world);
        (kind.name(), status.and_then(|status| status.last_release))
    })
}
