//! What a panel shows, kept up to date; and what its buttons do.

use bevy::{
    picking::hover::Hovered,
    prelude::*,
    ui::{InteractionDisabled, Pressed},
    ui_widgets::Activate,
};

use super::{
    build::{CARD, DIM, EDGE, TEXT},
    card::{Card, Cards, Line},
};
use crate::{ModelKinds, ModelRequest, ModelState};

/// The kind that a node shows, by its place in [`ModelKinds`].
#[derive(Component, Clone, Copy)]
pub(super) struct OfKind(pub(super) usize);

/// Shows the state as a colour.
#[derive(Component)]
pub(super) struct Lamp;

/// The done part of the progress bar.
#[derive(Component)]
pub(super) struct Bar;

/// What a button asks for.
#[derive(Component, Clone, Copy)]
pub(super) struct Ask(pub(super) ModelRequest);

/// Looks at all managers; the cards count as changed only where something did.
pub(super) fn read_models(world: &mut World) {
    let kinds = world.resource::<ModelKinds>();
    let cards = kinds.iter().map(|kind| Card::of(kind, world));
    // A manager that a game has removed keeps its last card: the others keep their places.
    let old = world.resource::<Cards>();
    let keep = |(place, card): (usize, Option<Card>)| card.or_else(|| old.get(place).cloned());
    let cards = Cards(cards.enumerate().map(keep).collect());
    world.resource_mut::<Cards>().set_if_neq(cards);
}

/// Writes what has changed; an error takes room only where there is one.
pub(super) fn show_lines(
    cards: Res<Cards>,
    mut lines: Query<(&OfKind, &Line, &mut Text, &mut Node)>,
) {
    for (kind, line, mut text, mut node) in &mut lines {
        let Some(card) = cards.get(kind.0) else {
            continue;
        };
        let new = card.line(*line);
        if text.0 != new {
            text.0 = new.into();
        }
        let is_gone = new.is_empty() && *line == Line::Error;
        let display = if is_gone {
            Display::None
        } else {
            Display::Flex
        };
        if node.display != display {
            node.display = display;
        }
    }
}

pub(super) fn show_bars(cards: Res<Cards>, mut bars: Query<(&OfKind, &mut Node), With<Bar>>) {
    for (kind, mut node) in &mut bars {
        let width = cards.get(kind.0).map(|card| percent(card.done * 100.0));
        if let Some(width) = width.filter(|width| *width != node.width) {
            node.width = width;
        }
    }
}

/// The bar has the colour of the lamp.
pub(super) fn show_state(
    cards: Res<Cards>,
    mut nodes: Query<(&OfKind, &mut BackgroundColor), Or<(With<Lamp>, With<Bar>)>>,
) {
    for (kind, mut color) in &mut nodes {
        if let Some(card) = cards.get(kind.0) {
            color.set_if_neq(BackgroundColor(color_of(card.state)));
        }
    }
}

fn color_of(state: ModelState) -> Color {
    match state {
        ModelState::Idle => DIM,
        ModelState::Loading => Color::srgb(0.957, 0.776, 0.361),
        ModelState::Loaded => Color::srgb(0.49, 0.827, 0.506),
        ModelState::Unloading => Color::srgb(0.447, 0.678, 0.922),
        ModelState::Failed => Color::srgb(0.945, 0.427, 0.376),
    }
}

/// Buttons that would do nothing are dim, and cannot be pressed.
pub(super) fn paint_buttons(
    mut commands: Commands,
    cards: Res<Cards>,
    mut buttons: Query<(
        Entity,
        &OfKind,
        &Ask,
        &Hovered,
        Has<Pressed>,
        Has<InteractionDisabled>,
        &mut BackgroundColor,
        &Children,
    )>,
    mut labels: Query<&mut TextColor>,
) {
    for (button, kind, ask, hovered, pressed, was_disabled, mut ground, children) in &mut buttons {
        let disabled = cards.get(kind.0).is_none_or(|card| !card.can(ask.0));
        if disabled != was_disabled {
            set_disabled(&mut commands.entity(button), disabled);
        }
        let color = match (disabled, pressed, hovered.get()) {
            (true, ..) | (false, true, _) => CARD,
            (false, false, true) => EDGE.lighter(0.08),
            (false, false, false) => EDGE,
        };
        ground.set_if_neq(BackgroundColor(color));
        let label = TextColor(if disabled { EDGE.lighter(0.1) } else { TEXT });
        for child in children {
            if let Ok(mut color) = labels.get_mut(*child) {
                color.set_if_neq(label);
            }
        }
    }
}

/// The panel may go in the same frame.
fn set_disabled(button: &mut EntityCommands, disabled: bool) {
    if disabled {
        // A press that is under way ends here: its release would come to a button that does not listen.
        button
            .try_insert(InteractionDisabled)
            .try_remove::<Pressed>();
    } else {
        button.try_remove::<InteractionDisabled>();
    }
}

/// Asks the manager.
pub(super) fn press(
    activate: On<Activate>,
    buttons: Query<(&OfKind, &Ask)>,
    mut commands: Commands,
) {
    let Ok((kind, ask)) = buttons.get(activate.entity) else {
        return;
    };
    let (kind, request) = (kind.0, ask.0);
    commands.queue(move |world: &mut World| {
        let kind = world.resource::<ModelKinds>().iter().nth(kind).cloned();
        if let Some(kind) = kind {
            kind.ask(world, request);
        }
    });
}
