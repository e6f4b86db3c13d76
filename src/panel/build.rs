//! The nodes of a panel.

use bevy::{
    picking::hover::Hovered,
    prelude::*,
    ui_widgets::{Button, ScrollArea},
};

use super::{
    ModelPanel,
    card::{BUTTONS, Cards, Line},
    refresh::{Ask, Bar, Lamp, OfKind},
};

pub(super) const GROUND: Color = Color::srgb(0.094, 0.086, 0.133);
pub(super) const CARD: Color = Color::srgb(0.145, 0.133, 0.2);
pub(super) const EDGE: Color = Color::srgb(0.231, 0.212, 0.32);
pub(super) const TEXT: Color = Color::srgb(0.91, 0.886, 0.827);
pub(super) const DIM: Color = Color::srgb(0.596, 0.569, 0.655);
const ERROR: Color = Color::srgb(0.945, 0.494, 0.431);
const WIDTH: f32 = 300.0;

/// Spawns a panel in the corner, where the game has none.
pub(super) fn spawn_default(mut commands: Commands, panels: Query<(), With<ModelPanel>>) {
    if !panels.is_empty() {
        return;
    }
    let corner = Node {
        position_type: PositionType::Absolute,
        top: px(12),
        right: px(12),
        width: px(WIDTH + 20.0),
        max_height: percent(96),
        padding: UiRect::all(px(10)),
        border_radius: BorderRadius::all(px(8)),
        overflow: Overflow::scroll_y(),
        flex_direction: FlexDirection::Column,
        row_gap: px(8),
        ..default()
    };
    commands.spawn((
        ModelPanel::default(),
        ScrollArea,
        corner,
        BackgroundColor(GROUND),
        GlobalZIndex(1000),
    ));
}

/// Adds a card for each kind that has none: also for those that a game adds later.
pub(super) fn add_cards(
    mut commands: Commands,
    mut panels: Query<(Entity, &mut ModelPanel)>,
    cards: Res<Cards>,
) {
    for (entity, mut panel) in &mut panels {
        for kind in (0..cards.0.len()).filter(|kind| cards.get(*kind).is_some()) {
            if !panel.cards.contains(&kind) {
                panel.cards.push(kind);
                // The panel may go in the same frame.
                commands.queue(move |world: &mut World| {
                    if let Ok(mut panel) = world.get_entity_mut(entity) {
                        panel.with_child(card(kind));
                    }
                });
            }
        }
    }
}

fn card(kind: usize) -> impl Bundle {
    let node = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(6),
        padding: UiRect::all(px(10)),
        border: UiRect::all(px(1)),
        border_radius: BorderRadius::all(px(5)),
        flex_shrink: 0.0,
        ..default()
    };
    (
        node,
        BackgroundColor(CARD),
        BorderColor::all(EDGE),
        children![
            head(kind),
            line(kind, Line::Model, 13.0, DIM),
            bar(kind),
            line(kind, Line::Progress, 13.0, TEXT),
            line(kind, Line::Memory, 13.0, TEXT),
            buttons(kind),
            line(kind, Line::Error, 13.0, ERROR),
        ],
    )
}

/// A lamp, the name and the state.
fn head(kind: usize) -> impl Bundle {
    let lamp = Node {
        width: px(10),
        height: px(10),
        border_radius: BorderRadius::all(px(5)),
        flex_shrink: 0.0,
        ..default()
    };
    let name = Node {
        flex_grow: 1.0,
        flex_shrink: 1.0,
        ..default()
    };
    (
        row(8.0),
        children![
            (lamp, BackgroundColor(DIM), Lamp, OfKind(kind)),
            (name, children![line(kind, Line::Name, 15.0, TEXT)]),
            line(kind, Line::State, 13.0, DIM),
        ],
    )
}

fn row(gap: f32) -> Node {
    Node {
        align_items: AlignItems::Center,
        column_gap: px(gap),
        ..default()
    }
}

/// A text. The progress keeps its room where there is nothing to say, so that the buttons stay where they are.
fn line(kind: usize, line: Line, size: f32, color: Color) -> impl Bundle {
    let min_height = match line {
        Line::Progress => px((size * 1.2).ceil()),
        _ => auto(),
    };
    let node = Node {
        min_height,
        ..default()
    };
    (
        node,
        Text::default(),
        TextFont::from_font_size(size),
        TextColor(color),
        line,
        OfKind(kind),
    )
}

fn bar(kind: usize) -> impl Bundle {
    let groove = Node {
        height: px(6),
        border_radius: BorderRadius::all(px(3)),
        overflow: Overflow::clip(),
        flex_shrink: 0.0,
        ..default()
    };
    let done = Node {
        width: percent(0),
        height: percent(100),
        border_radius: BorderRadius::all(px(3)),
        ..default()
    };
    let done = (done, BackgroundColor(DIM), Bar, OfKind(kind));
    (groove, BackgroundColor(GROUND), children![done])
}

fn buttons(kind: usize) -> impl Bundle {
    let [load, cancel, unload, reload] =
        BUTTONS.map(|(request, label)| button(kind, Ask(request), label));
    (row(6.0), children![load, cancel, unload, reload])
}

fn button(kind: usize, ask: Ask, label: &'static str) -> impl Bundle {
    let node = Node {
        height: px(26),
        flex_grow: 1.0,
        flex_basis: px(0),
        align_items: AlignItems::Center,
        justify_content: JustifyContent::Center,
        border: UiRect::all(px(1)),
        border_radius: BorderRadius::all(px(4)),
        ..default()
    };
    let label = (
        Text::new(label),
        TextFont::from_font_size(13.0),
        TextColor(TEXT),
        Pickable::IGNORE,
    );
    (
        node,
        Button,
        Hovered::default(),
        BackgroundColor(EDGE),
        BorderColor::all(EDGE),
        (ask, OfKind(kind)),
        children![label],
    )
}
