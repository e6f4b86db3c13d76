//! The queue: each row is a job. Despawning the row takes the job away, wherever it is.

use bevy::{
    picking::hover::Hovered,
    prelude::*,
    ui::UiSystems,
    ui_widgets::{Activate, Button},
};
use bevy_candle::prelude::*;

use crate::{
    Sprites,
    controls::{Choice, SAMPLERS},
    inventory::Finished,
    items::{self, WholePixels},
    kit::palette::{DIM, EDGE, EMBER, RED, TEXT},
    layout::{card, text, title},
    stage::Stage,
};

pub fn plugin(app: &mut App) {
    app.init_resource::<Seeds>()
        .add_observer(forge)
        .add_observer(show_step)
        .add_observer(finish)
        .add_observer(take_away)
        .add_systems(Update, (show_length, paint_rows))
        .add_systems(OnEnter(ModelState::Loaded.of::<Sprites>()), forget)
        .add_systems(PostUpdate, items::fit_pictures.before(UiSystems::Layout));
}

/// Asks for one more item.
#[derive(Event)]
pub struct Forge;

/// As many as fit.
const LONGEST: usize = 5;
const STEPS: u32 = 30;
const FULL: &str = "The queue is full.";

/// A second click within this time, in seconds, is meant for the row that is gone.
const DOUBLE_CLICK: f32 = 0.3;

#[derive(Resource)]
struct Seeds(u64);

impl Default for Seeds {
    fn default() -> Self {
        Self(7)
    }
}

/// The rows are in here.
#[derive(Component)]
struct Rows;

/// A row: a job, on its way.
#[derive(Component)]
struct Order {
    step: u32,
}

/// The text of a row that says how far it is.
#[derive(Component)]
struct Steps;

/// The title of the queue, and what was wrong last.
#[derive(Component)]
struct Length;

#[derive(Component)]
pub struct Complaint;

pub fn list() -> impl Bundle {
    let rows = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(4),
        ..default()
    };
    let complaint = Node {
        max_width: px(272),
        ..default()
    };
    let complaint = (
        complaint,
        Text::default(),
        TextFont::from_font_size(12.0),
        TextColor(RED),
        Complaint,
    );
    let content = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(6),
        ..default()
    };
    let content = (content, children![(rows, Rows), complaint]);
    card((title("Queue"), Length), content, 1.0)
}

fn forge(
    _: On<Forge>,
    mut commands: Commands,
    rows: Query<(Entity, Option<&Children>), With<Rows>>,
    mut complaint: Query<&mut Text, With<Complaint>>,
    (choice, mut seeds, assets): (Res<Choice>, ResMut<Seeds>, Res<AssetServer>),
) {
    let Ok((rows, waiting)) = rows.single() else {
        return;
    };
    let full = waiting.is_some_and(|waiting| waiting.len() >= LONGEST);
    for mut text in &mut complaint {
        text.0 = if full { FULL.into() } else { String::new() };
    }
    if full {
        return;
    }
    seeds.0 += 1;
    let request = DdpmRequest {
        class: Some(choice.class),
        seed: seeds.0,
        steps: STEPS,
        sampler: Some(SAMPLERS[choice.sampler].1),
        ..default()
    };
    let job = Infer::<Sprites>::new(request).previews_every(1);
    let icon = items::icon(choice.class, &assets);
    let row = commands.spawn(row(&choice, icon)).insert(job).id();
    commands.entity(rows).add_child(row);
}

fn row(choice: &Choice, icon: ImageNode) -> impl Bundle {
    let node = Node {
        height: px(34),
        padding: UiRect::axes(px(8), px(0)),
        align_items: AlignItems::Center,
        column_gap: px(8),
        border: UiRect::all(px(1)),
        border_radius: BorderRadius::all(px(5)),
        ..default()
    };
    let room = Node {
        width: px(32),
        height: px(32),
        align_items: AlignItems::Center,
        justify_content: JustifyContent::Center,
        ..default()
    };
    let picture = WholePixels {
        pixels: 32.0,
        side: 32.0,
    };
    let gap = Node {
        flex_grow: 1.0,
        ..default()
    };
    let (name, sampler) = (
        items::NAMES[choice.class as usize],
        SAMPLERS[choice.sampler].0,
    );
    (
        node,
        Button,
        Hovered::default(),
        Order { step: 0 },
        BackgroundColor(items::GROUND),
        BorderColor::all(EDGE),
        children![
            (
                room,
                Pickable::IGNORE,
                children![(picture, icon, Pickable::IGNORE)]
            ),
            text(name, 13.0, TEXT),
            text(sampler, 12.0, DIM),
            gap,
            (text("waits", 12.0, DIM), Steps),
            text("x", 14.0, EMBER),
        ],
    )
}

fn show_step(
    step: On<InferStep<Sprites>>,
    mut orders: Query<(&mut Order, &Children)>,
    mut texts: Query<&mut Text, With<Steps>>,
    mut stage: ResMut<Stage>,
) {
    let Ok((mut order, children)) = orders.get_mut(step.entity) else {
        return;
    };
    order.step = step.step;
    for child in children {
        if let Ok(mut text) = texts.get_mut(*child) {
            text.0 = format!("{}/{}", step.step, step.steps);
        }
    }
    if let Some(picture) = step.partial.as_ref().and_then(items::picture) {
        stage.strike(step.entity, step.step, step.steps, picture);
    }
}

/// The row goes with its job.
fn finish(
    mut done: On<Inferred<Sprites>>,
    mut commands: Commands,
    mut complaint: Query<&mut Text, With<Complaint>>,
) {
    match done.take() {
        Ok(output) => {
            forget(complaint);
            if let Some(picture) = items::picture(&output) {
                commands.trigger(Finished { picture });
            }
        }
        Err(error) => {
            for mut text in &mut complaint {
                text.0 = format!("No sprite: {}.", ErrorChain(&error));
            }
        }
    }
    commands.entity(done.entity).try_despawn();
}

/// What was wrong is over.
fn forget(mut complaint: Query<&mut Text, With<Complaint>>) {
    for mut text in &mut complaint {
        if !text.0.is_empty() {
            text.0.clear();
        }
    }
}

fn take_away(
    activate: On<Activate>,
    orders: Query<(), With<Order>>,
    time: Res<Time<Real>>,
    mut last: Local<f32>,
    mut commands: Commands,
) {
    let now = time.elapsed_secs();
    if orders.contains(activate.entity) && now - *last > DOUBLE_CLICK {
        *last = now;
        commands.entity(activate.entity).try_despawn();
    }
}

fn show_length(
    orders: Query<(), With<Order>>,
    mut title: Query<&mut Text, With<Length>>,
    mut complaint: Query<&mut Text, (With<Complaint>, Without<Length>)>,
) {
    let jobs = orders.iter().count();
    for mut text in &mut complaint {
        if jobs < LONGEST && text.0 == FULL {
            text.0.clear();
        }
    }
    let shown = match jobs {
        0 => "Queue: nothing is on order".into(),
        jobs => format!("Queue: {jobs}  (click to take away)"),
    };
    for mut text in &mut title {
        if text.0 != shown {
            text.0.clone_from(&shown);
        }
    }
}

fn paint_rows(mut rows: Query<(&Order, &Hovered, &mut BackgroundColor, &mut BorderColor)>) {
    for (order, hovered, mut ground, mut edge) in &mut rows {
        let color = if hovered.get() {
            items::GROUND.lighter(0.06)
        } else {
            items::GROUND
        };
        ground.set_if_neq(BackgroundColor(color));
        let border = if order.step > 0 { EMBER } else { EDGE };
        edge.set_if_neq(BorderColor::all(border));
    }
}
