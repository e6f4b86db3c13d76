//! The five states as lamps. One that was left fades, so that the way of a quick load can be seen.

use bevy::prelude::*;
use bevy_candle::prelude::*;

use crate::{
    Sprites,
    kit::palette::{AMBER, DIM, EDGE, GREEN, RED, TEXT},
    layout::text,
};

pub fn plugin(app: &mut App) {
    app.add_systems(Update, shine);
}

const STATES: [(ModelState, Color); 5] = [
    (ModelState::Idle, DIM),
    (ModelState::Loading, AMBER),
    (ModelState::Loaded, GREEN),
    (ModelState::Unloading, BLUE),
    (ModelState::Failed, RED),
];

pub const BLUE: Color = Color::srgb(0.447, 0.678, 0.922);

/// Seconds that a lamp takes to go out.
const FADE: f32 = 0.9;

#[derive(Component)]
struct Lamp {
    state: ModelState,
    color: Color,
    light: f32,
}

/// The light itself, or the name beside it.
#[derive(Component)]
struct Glass;

pub fn row() -> impl Bundle {
    let node = Node {
        column_gap: px(20),
        align_items: AlignItems::Center,
        ..default()
    };
    let lamps = Children::spawn(SpawnIter(STATES.into_iter().map(one)));
    (node, lamps)
}

fn one((state, color): (ModelState, Color)) -> impl Bundle {
    let light = 0.0;
    let node = Node {
        column_gap: px(8),
        align_items: AlignItems::Center,
        ..default()
    };
    let glass = Node {
        width: px(14),
        height: px(14),
        border: UiRect::all(px(2)),
        border_radius: BorderRadius::all(px(3)),
        ..default()
    };
    (
        node,
        Lamp {
            state,
            color,
            light,
        },
        children![
            (glass, BackgroundColor(EDGE), BorderColor::all(EDGE), Glass),
            text(format!("{state:?}"), 14.0, DIM),
        ],
    )
}

fn shine(
    mut lamps: Query<(&mut Lamp, &Children)>,
    mut glasses: Query<(&mut BackgroundColor, &mut BorderColor), With<Glass>>,
    mut names: Query<&mut TextColor>,
    (sprites, time): (Res<ModelManager<Sprites>>, Res<Time<Real>>),
    mut passed: MessageReader<ModelTransition<Sprites>>,
) {
    let passed: Vec<_> = passed.read().map(|transition| transition.to).collect();
    for (mut one, children) in &mut lamps {
        let is_on = one.state == sprites.current_state || passed.contains(&one.state);
        one.light = if is_on {
            1.0
        } else {
            (one.light - time.delta_secs() / FADE).max(0.0)
        };
        let color = EDGE.mix(&one.color, one.light);
        for child in children {
            if let Ok((mut ground, mut edge)) = glasses.get_mut(*child) {
                ground.set_if_neq(BackgroundColor(color));
                edge.set_if_neq(BorderColor::all(color.lighter(0.1 * one.light)));
            }
            if let Ok(mut name) = names.get_mut(*child) {
                name.set_if_neq(TextColor(DIM.mix(&TEXT, one.light)));
            }
        }
    }
}
