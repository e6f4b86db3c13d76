//! Memory and frame time as lines over time.

use std::time::Duration;

use bevy::{diagnostic::DiagnosticsStore, prelude::*, time::common_conditions::on_timer};
use bevy_candle::ModelDiagnosticsPlugin;

use crate::{
    Sprites,
    kit::{
        palette::GREEN,
        plot::{Plot, Reading, draw_plots, plot},
    },
    lamps::BLUE,
};

pub fn plugin(app: &mut App) {
    app.init_resource::<WorstFrame>().add_systems(
        Update,
        (watch, sample.run_if(on_timer(COLUMN)), draw_plots).chain(),
    );
}

/// The time of one column.
const COLUMN: Duration = Duration::from_millis(100);
const SIZE: UVec2 = UVec2::new(132, 34);

#[derive(Component, Clone, Copy, PartialEq)]
enum Gauge {
    Memory,
    Frame,
}

/// The longest frame since the last column, in milliseconds.
#[derive(Resource, Default)]
struct WorstFrame(f32);

pub fn row(images: &mut Assets<Image>) -> impl Bundle + use<> {
    let node = Node {
        justify_content: JustifyContent::SpaceBetween,
        ..default()
    };
    let mut memory = Plot::new(SIZE, BLUE, 9.0);
    memory.grows = true;
    let mut frame = Plot::new(SIZE, GREEN, 100.0);
    frame.mark = Some(1000.0 / 60.0);
    let memory = plot("Memory of the model", memory, images, Gauge::Memory);
    let frame = plot("Frame time", frame, images, Gauge::Frame);
    (node, children![memory, frame])
}

fn watch(time: Res<Time<Real>>, mut worst: ResMut<WorstFrame>) {
    worst.0 = worst.0.max(time.delta_secs() * 1000.0);
}

fn sample(
    gauges: Query<(&Gauge, &Children)>,
    mut plots: Query<&mut Plot>,
    heads: Query<&Children>,
    mut readings: Query<&mut Text, With<Reading>>,
    (store, mut worst): (Res<DiagnosticsStore>, ResMut<WorstFrame>),
) {
    let bytes = store.get(&ModelDiagnosticsPlugin::memory::<Sprites>());
    let megabytes = bytes.and_then(|bytes| bytes.value()).unwrap_or(0.0) / 1e6;
    let frame = std::mem::take(&mut worst.0);
    for (gauge, children) in &gauges {
        let (value, shown) = match gauge {
            Gauge::Memory => (megabytes as f32, format!("{megabytes:.1} MB")),
            Gauge::Frame => (frame, format!("{frame:.0} ms")),
        };
        for child in children {
            if let Ok(mut plot) = plots.get_mut(*child) {
                plot.push(value);
            }
        }
        for child in children
            .iter()
            .filter_map(|child| heads.get(child).ok())
            .flatten()
        {
            if let Ok(mut text) = readings.get_mut(*child) {
                text.0.clone_from(&shown);
            }
        }
    }
}
