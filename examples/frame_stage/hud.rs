//! What is written over the stage: the keys, the longest frames, and the frame time as a line.

use bevy::prelude::*;
use bevy_candle::prelude::*;

use crate::{
    kit::{
        palette::{AMBER, DIM, EMBER, GREEN, PANEL, RED, TEXT},
        plot::{Plot, Reading, draw_plots, plot},
    },
    model::{BYTES, Block, Weights},
    naive::{Naive, load_or_unload},
};

pub fn plugin(app: &mut App) {
    app.init_resource::<Longest>()
        .add_systems(Startup, build)
        .add_systems(
            Update,
            (watch.after(load_or_unload), draw_frame, draw_plots, write).chain(),
        );
}

/// The time of one column of the plot, in milliseconds: a frame that is late is as wide as it is long.
const COLUMN: f32 = 20.0;
const SIZE: UVec2 = UVec2::new(618, 48);

/// The longest frame while the model came or went, since it began to come, in milliseconds.
#[derive(Resource, Default)]
struct Longest(f32);

#[derive(Component, Clone, Copy)]
enum Line {
    File,
    Candle,
    Naive,
}

#[derive(Component)]
struct FrameTime;

fn build(mut commands: Commands, mut images: ResMut<Assets<Image>>) {
    let page = Node {
        width: percent(100),
        height: percent(100),
        padding: UiRect::all(px(12)),
        flex_direction: FlexDirection::Column,
        justify_content: JustifyContent::SpaceBetween,
        align_items: AlignItems::FlexStart,
        ..default()
    };
    let mut frame = Plot::new(SIZE, GREEN, 100.0);
    frame.mark = Some(1000.0 / 60.0);
    let frame = plot(
        "Frame time of the last 12 seconds; dashes: 16.7 ms, top: 100 ms",
        frame,
        &mut images,
        FrameTime,
    );
    commands.spawn((page, Pickable::IGNORE, children![legend(), frame]));
}

fn legend() -> impl Bundle {
    let node = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(8),
        padding: UiRect::all(px(14)),
        border_radius: BorderRadius::all(px(8)),
        width: px(330),
        ..default()
    };
    (
        node,
        BackgroundColor(PANEL),
        children![
            text("FRAME STAGE", 22.0, EMBER),
            (text("", 13.0, DIM), Line::File),
            text("1   load or unload with bevy_candle", 14.0, TEXT),
            (text("", 13.0, GREEN), Line::Candle),
            text("2   load or unload in a system", 14.0, TEXT),
            (text("", 13.0, RED), Line::Naive),
        ],
    )
}

fn text(text: &str, size: f32, color: Color) -> impl Bundle {
    (
        Text::new(text),
        TextFont::from_font_size(size),
        TextColor(color),
    )
}

/// A frame counts for the model while that comes or goes. What is known of a frame's length is that of the one before.
fn watch(
    time: Res<Time<Real>>,
    block: Res<ModelManager<Block>>,
    naive: Res<Naive>,
    mut longest: ResMut<Longest>,
    (mut counted, mut last): (Local<bool>, Local<ModelState>),
) {
    let before = std::mem::replace(&mut *last, block.current_state);
    if *last == ModelState::Loading && before != *last {
        longest.0 = 0.0;
    } else if *counted {
        longest.0 = longest.0.max(time.delta_secs() * 1000.0);
    }
    *counted = block.current_state.is_busy() && !naive.is_changed();
}

fn draw_frame(
    time: Res<Time<Real>>,
    mut plots: Query<&mut Plot>,
    mut readings: Query<&mut Text, With<Reading>>,
    mut rest: Local<f32>,
) {
    let frame = time.delta_secs() * 1000.0;
    *rest += frame;
    for mut plot in &mut plots {
        while *rest >= COLUMN {
            *rest -= COLUMN;
            plot.push(frame);
        }
        for mut text in &mut readings {
            text.0 = format!("longest {:.0} ms", plot.highest());
        }
    }
}

fn write(
    mut lines: Query<(&Line, &mut Text, &mut TextColor)>,
    (weights, naive, longest): (Res<Weights>, Res<Naive>, Res<Longest>),
    block: Res<ModelManager<Block>>,
) {
    for (line, mut text, mut color) in &mut lines {
        let (shown, new) = match line {
            Line::File => file(&weights),
            Line::Candle => (candle(block.current_state, longest.0), GREEN),
            Line::Naive => (self::naive(&naive), RED),
        };
        if text.0 != shown {
            text.0 = shown;
        }
        color.set_if_neq(TextColor(new));
    }
}

fn file(weights: &Weights) -> (String, Color) {
    match weights.written() {
        Err(error) => (format!("no model: {error}"), RED),
        Ok(BYTES) => ("a model of 1 GiB, in a temporary file".into(), DIM),
        Ok(bytes) => (
            format!("writing the model: {} of 1024 MiB", bytes >> 20),
            AMBER,
        ),
    }
}

fn candle(state: ModelState, longest: f32) -> String {
    match longest {
        0.0 => format!("    {state:?}"),
        _ => format!("    {state:?}; longest frame {longest:.0} ms"),
    }
}

fn naive(naive: &Naive) -> String {
    let state = if naive.is_loaded() {
        "loaded"
    } else {
        "not loaded"
    };
    match naive.last {
        0.0 => format!("    {state}"),
        last => format!("    {state}; stood still {last:.0} ms"),
    }
}
