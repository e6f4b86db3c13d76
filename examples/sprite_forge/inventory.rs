//! The inventory: finished sprites fly from the anvil into its slots.

use bevy::{prelude::*, ui::UiGlobalTransform, ui_widgets::ScrollArea};

use crate::{
    items,
    kit::palette::{EDGE, EMBER, GROUND},
    layout::{card, title},
    stage::{Stage, StageNode},
};

pub fn plugin(app: &mut App) {
    app.init_resource::<Made>()
        .add_observer(launch)
        .add_systems(Update, (fly, cool, show_count));
}

/// A sprite is finished.
#[derive(Event)]
pub struct Finished {
    pub picture: Image,
}

/// When all slots are full, the first one is used again.
const SLOTS: usize = 20;
const SLOT: f32 = 70.0;
const ICON: f32 = 64.0;
/// A sprite on the anvil, on the screen.
const ON_ANVIL: f32 = 256.0;
const FLIGHT: f32 = 0.55;

/// How many were made.
#[derive(Resource, Default)]
struct Made(usize);

#[derive(Component)]
struct InSlot {
    at: usize,
    heat: f32,
}

/// A sprite in the air.
#[derive(Component)]
struct Flying {
    slot: usize,
    from: Vec2,
    time: f32,
}

#[derive(Component)]
struct Count;

pub fn grid() -> impl Bundle {
    let grid = Node {
        display: Display::Grid,
        grid_template_columns: RepeatedGridTrack::px(4, SLOT),
        justify_content: JustifyContent::SpaceBetween,
        align_content: AlignContent::FlexStart,
        // Where the panel has much to say, the rest of the slots is a turn of the wheel away.
        overflow: Overflow::scroll_y(),
        flex_basis: px(0),
        flex_grow: 1.0,
        min_height: px(0),
        row_gap: px(13),
        ..default()
    };
    let slots = Children::spawn(SpawnIter((0..SLOTS).map(slot)));
    card((title("Inventory"), Count), (grid, ScrollArea, slots), 1.0)
}

fn slot(at: usize) -> impl Bundle {
    let node = Node {
        width: px(SLOT),
        height: px(SLOT),
        align_items: AlignItems::Center,
        justify_content: JustifyContent::Center,
        border: UiRect::all(px(2)),
        border_radius: BorderRadius::all(px(6)),
        ..default()
    };
    let picture = Node {
        width: px(ICON),
        height: px(ICON),
        flex_shrink: 0.0,
        ..default()
    };
    (
        node,
        BackgroundColor(GROUND),
        BorderColor::all(EDGE),
        InSlot { at, heat: 0.0 },
        children![picture],
    )
}

/// Takes the sprite off the anvil.
fn launch(
    mut finished: On<Finished>,
    mut commands: Commands,
    (mut images, mut stage, mut made): (ResMut<Assets<Image>>, ResMut<Stage>, ResMut<Made>),
    anvil: Query<(&UiGlobalTransform, &ComputedNode), With<StageNode>>,
) {
    stage.take();
    let slot = made.0 % SLOTS;
    made.0 += 1;
    let from = anvil.single().map_or(Vec2::ZERO, |(at, node)| {
        at.translation * node.inverse_scale_factor() + Vec2::new(40.0, -76.0)
    });
    let node = Node {
        position_type: PositionType::Absolute,
        ..default()
    };
    let image = images.add(std::mem::take(&mut finished.picture));
    commands.spawn((
        node,
        ImageNode::new(image),
        GlobalZIndex(10),
        Flying {
            slot,
            from,
            time: 0.0,
        },
        Pickable::IGNORE,
    ));
}

fn fly(
    mut commands: Commands,
    time: Res<Time<Real>>,
    mut flying: Query<(Entity, &mut Flying, &mut Node, &ImageNode)>,
    mut slots: Query<(&mut InSlot, &UiGlobalTransform, &ComputedNode, &Children)>,
) {
    for (entity, mut flight, mut node, image) in &mut flying {
        flight.time += time.delta_secs();
        let slot = slots.iter_mut().find(|(slot, ..)| slot.at == flight.slot);
        let Some((mut slot, at, computed, children)) = slot else {
            continue;
        };
        let part = (flight.time / FLIGHT).min(1.0);
        let to = at.translation * computed.inverse_scale_factor();
        place(&mut node, flight.from, to, part);
        if part == 1.0 {
            slot.heat = 1.0;
            let picture = (image.clone(), BackgroundColor(items::GROUND));
            commands.entity(children[0]).insert(picture);
            commands.entity(entity).despawn();
        }
    }
}

/// First up a little, then down into the slot.
fn place(node: &mut Node, from: Vec2, to: Vec2, part: f32) {
    let eased = part * part * (3.0 - 2.0 * part);
    let arc = Vec2::new(0.0, -90.0 * (part * std::f32::consts::PI).sin());
    let middle = from.lerp(to, eased) + arc;
    let side = ON_ANVIL + (ICON - ON_ANVIL) * eased;
    (node.width, node.height) = (px(side), px(side));
    (node.left, node.top) = (px(middle.x - side / 2.0), px(middle.y - side / 2.0));
}

/// A slot glows when something has dropped into it.
fn cool(time: Res<Time<Real>>, mut slots: Query<(&mut InSlot, &mut BorderColor)>) {
    for (mut slot, mut edge) in &mut slots {
        edge.set_if_neq(BorderColor::all(EDGE.mix(&EMBER, slot.heat)));
        if slot.heat > 0.0 {
            slot.heat = (slot.heat - time.delta_secs()).max(0.0);
        }
    }
}

fn show_count(made: Res<Made>, mut title: Query<&mut Text, With<Count>>) {
    for mut text in &mut title {
        let shown = format!("Inventory: {}", made.0);
        if text.0 != shown {
            text.0 = shown;
        }
    }
}
