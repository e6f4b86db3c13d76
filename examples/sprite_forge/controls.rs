//! What is forged next: pickers, the forge button, and the keys.

use bevy::{
    picking::hover::Hovered,
    prelude::*,
    ui::Pressed,
    ui_widgets::{Activate, Button},
};
use bevy_candle::{ModelKinds, ModelRequest, prelude::*};

use crate::{
    items,
    kit::palette::{EDGE, EMBER, GROUND, TEXT},
    layout::{card, text, title},
    queue::Forge,
};

pub fn plugin(app: &mut App) {
    app.init_resource::<Choice>()
        .add_systems(
            Update,
            (take_keys, ask_model, paint, outline, show_name).chain(),
        )
        .add_observer(choose);
}

/// What the next job is about.
#[derive(Resource, Default)]
pub struct Choice {
    pub class: u32,
    pub sampler: usize,
}

pub const SAMPLERS: [(&str, Sampler); 4] = [
    ("DDIM", Sampler::Ddim { eta: 0.0 }),
    ("DDPM", Sampler::Ddpm),
    ("Euler", Sampler::Euler),
    ("DPM++", Sampler::DpmSolverPlusPlus),
];

/// What a button does.
#[derive(Component, Clone, Copy)]
enum Action {
    Class(u32),
    Sampler(usize),
    Forge,
}

/// Shows the name of the chosen item.
#[derive(Component)]
struct ChosenName;

pub fn items(assets: &AssetServer) -> impl Bundle {
    let grid = Node {
        display: Display::Grid,
        grid_template_columns: RepeatedGridTrack::px(4, 64.0),
        justify_content: JustifyContent::SpaceBetween,
        row_gap: px(6),
        ..default()
    };
    let cells: Vec<_> = (0..items::NAMES.len() as u32)
        .map(|class| (class, items::icon(class, assets)))
        .collect();
    let cells = Children::spawn(SpawnIter(cells.into_iter().map(item_cell)));
    card((title("Item"), ChosenName), (grid, cells), 0.0)
}

fn item_cell((class, icon): (u32, ImageNode)) -> impl Bundle {
    let node = Node {
        width: px(64),
        height: px(64),
        border: UiRect::all(px(2)),
        border_radius: BorderRadius::all(px(6)),
        ..default()
    };
    let picture = Node {
        position_type: PositionType::Absolute,
        left: px(-2),
        top: px(-2),
        width: px(64),
        height: px(64),
        ..default()
    };
    let number = Node {
        position_type: PositionType::Absolute,
        left: px(3),
        top: px(1),
        ..default()
    };
    (
        node,
        Button,
        Hovered::default(),
        Action::Class(class),
        BackgroundColor(items::GROUND),
        BorderColor::all(items::GROUND),
        Outline::new(px(2), px(0), Color::NONE),
        children![
            (picture, icon, Pickable::IGNORE),
            (
                number,
                text((class + 1).to_string(), 11.0, TEXT.with_alpha(0.55))
            ),
        ],
    )
}

pub fn samplers() -> impl Bundle {
    let row = Node {
        column_gap: px(6),
        ..default()
    };
    let buttons = (0..SAMPLERS.len()).map(|at| {
        let label = (SAMPLERS[at].0, 13.0, TEXT);
        button(Action::Sampler(at), 30.0, label, items::GROUND)
    });
    let buttons: Vec<_> = buttons.collect();
    let buttons = Children::spawn(SpawnIter(buttons.into_iter()));
    card(title("Sampler  (T)"), (row, buttons), 0.0)
}

pub fn forge() -> impl Bundle {
    button(Action::Forge, 46.0, ("FORGE  (Space)", 18.0, GROUND), EMBER)
}

fn button(
    action: Action,
    height: f32,
    (label, size, color): (&'static str, f32, Color),
    ground: Color,
) -> impl Bundle {
    let node = Node {
        height: px(height),
        flex_grow: 1.0,
        flex_basis: if matches!(action, Action::Forge) {
            auto()
        } else {
            px(0)
        },
        max_height: px(height),
        flex_shrink: 0.0,
        align_items: AlignItems::Center,
        justify_content: JustifyContent::Center,
        border: UiRect::all(px(2)),
        border_radius: BorderRadius::all(px(6)),
        ..default()
    };
    (
        node,
        Button,
        Hovered::default(),
        action,
        BackgroundColor(ground),
        BorderColor::all(ground),
        children![text(label, size, color)],
    )
}

fn choose(
    activate: On<Activate>,
    actions: Query<&Action>,
    mut choice: ResMut<Choice>,
    mut commands: Commands,
) {
    match actions.get(activate.entity) {
        Ok(Action::Class(class)) => choice.class = *class,
        Ok(Action::Sampler(sampler)) => choice.sampler = *sampler,
        Ok(Action::Forge) => commands.trigger(Forge),
        Err(_) => {}
    }
}

fn take_keys(keys: Res<ButtonInput<KeyCode>>, mut choice: ResMut<Choice>, mut commands: Commands) {
    const CLASSES: [KeyCode; 8] = [
        KeyCode::Digit1,
        KeyCode::Digit2,
        KeyCode::Digit3,
        KeyCode::Digit4,
        KeyCode::Digit5,
        KeyCode::Digit6,
        KeyCode::Digit7,
        KeyCode::Digit8,
    ];
    if let Some(class) = CLASSES.iter().position(|key| keys.just_pressed(*key)) {
        choice.class = class as u32;
    }
    if keys.just_pressed(KeyCode::KeyT) {
        choice.sampler = (choice.sampler + 1) % SAMPLERS.len();
    }
    if keys.just_pressed(KeyCode::Space) {
        commands.trigger(Forge);
    }
}

fn ask_model(keys: Res<ButtonInput<KeyCode>>, mut commands: Commands) {
    let asks = [
        (KeyCode::KeyL, ModelRequest::Load),
        (KeyCode::KeyC, ModelRequest::Cancel),
        (KeyCode::KeyU, ModelRequest::Unload),
        (KeyCode::KeyR, ModelRequest::Reload),
    ];
    for (_, request) in asks.into_iter().filter(|(key, _)| keys.just_pressed(*key)) {
        commands.queue(move |world: &mut World| ask_all(world, request));
    }
}

fn ask_all(world: &mut World, request: ModelRequest) {
    let kinds = world.resource::<ModelKinds>().clone();
    for kind in kinds.iter() {
        kind.ask(world, request);
    }
}

/// What is chosen has a bright edge.
fn paint(
    choice: Res<Choice>,
    mut buttons: Query<(
        &Action,
        &Hovered,
        Has<Pressed>,
        &mut BackgroundColor,
        &mut BorderColor,
    )>,
) {
    for (action, hovered, pressed, mut ground, mut edge) in &mut buttons {
        let (base, chosen) = match action {
            Action::Class(class) => (items::GROUND, *class == choice.class),
            Action::Sampler(sampler) => (items::GROUND, *sampler == choice.sampler),
            Action::Forge => (EMBER, false),
        };
        let color = match (pressed, hovered.get()) {
            (true, _) => base.darker(0.06),
            (false, true) => base.lighter(0.05),
            (false, false) => base,
        };
        ground.set_if_neq(BackgroundColor(color));
        let border = if chosen {
            EMBER
        } else if base == EMBER {
            color
        } else {
            EDGE
        };
        edge.set_if_neq(BorderColor::all(border));
    }
}

/// The picture of an item covers its border: what is chosen has a line around it.
fn outline(choice: Res<Choice>, mut items: Query<(&Action, &Hovered, &mut Outline)>) {
    for (action, hovered, mut outline) in &mut items {
        let chosen = matches!(action, Action::Class(class) if *class == choice.class);
        let color = match (chosen, hovered.get()) {
            (true, _) => EMBER,
            (false, true) => EDGE,
            (false, false) => Color::NONE,
        };
        outline.set_if_neq(Outline { color, ..*outline });
    }
}

fn show_name(choice: Res<Choice>, mut name: Query<&mut Text, With<ChosenName>>) {
    for mut text in &mut name {
        let shown = format!("Item: {}", items::NAMES[choice.class as usize]);
        if text.0 != shown {
            text.0 = shown;
        }
    }
}
