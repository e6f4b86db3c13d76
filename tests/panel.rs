//! The panel, through Bevy's own UI and input: a pointer goes to a button and clicks it.

use bevy::{
    a11y::AccessibilityPlugin,
    camera::{CameraPlugin, ComputedCameraValues, RenderTargetInfo},
    input::{ButtonState, InputPlugin, mouse::MouseButtonInput},
    input_focus::{InputDispatchPlugin, InputFocusPlugin},
    mesh::MeshPlugin,
    picking::DefaultPickingPlugins,
    prelude::*,
    sprite::SpritePlugin,
    text::TextPlugin,
    ui::{InteractionDisabled, UiGlobalTransform, UiPlugin},
    ui_widgets::UiWidgetsPlugins,
    window::{CursorMoved, PrimaryWindow, WindowEvent},
};
use bevy_candle::{
    ModelPanel, ModelPanelPlugin,
    prelude::*,
    test_kit::{Fake, FakeModel, Gate, Place, run_until, run_until_state},
};

const SIZE: UVec2 = UVec2::new(1280, 720);

fn app() -> App {
    app_with(|_| {})
}

/// An app of which something is different from before the first frame on: its systems run before the panel's.
fn app_with(change: impl FnOnce(&mut App)) -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, AssetPlugin::default(), TransformPlugin))
        .add_plugins((WindowPlugin::default(), AccessibilityPlugin, InputPlugin))
        .add_plugins((
            InputFocusPlugin,
            InputDispatchPlugin,
            ImagePlugin::default(),
        ))
        .add_plugins((MeshPlugin, CameraPlugin, SpritePlugin, TextPlugin, UiPlugin))
        .add_plugins((DefaultPickingPlugins, UiWidgetsPlugins))
        .add_plugins(ModelPlugin::<Fake>::default());
    change(&mut app);
    app.add_plugins(ModelPanelPlugin);
    app.finish();
    app.cleanup();
    // The renderer tells a camera how large its window is. Here is none.
    let target_info = Some(RenderTargetInfo {
        physical_size: SIZE,
        scale_factor: 1.0,
    });
    let computed = ComputedCameraValues {
        target_info,
        ..default()
    };
    let camera = Camera {
        computed,
        ..default()
    };
    app.world_mut().spawn((Camera2d, camera));
    app.update();
    app
}

fn load(app: &mut App, model: &FakeModel) {
    let mut manager = app.world_mut().resource_mut::<ModelManager<Fake>>();
    manager.load(model.source());
}

fn state(world: &World) -> ModelState {
    world.resource::<ModelManager<Fake>>().current_state
}

/// The button with a label.
fn button(world: &mut World, label: &str) -> Option<Entity> {
    let mut labels = world.query::<(&Text, &ChildOf)>();
    let found = labels.iter(world).find(|(text, _)| text.0 == label);
    found.map(|(_, child)| child.parent())
}

/// Moves the mouse to the middle of a button and clicks, as a window would report it.
fn click(app: &mut App, label: &str) {
    let button = button(app.world_mut(), label).expect("the panel has such a button");
    run_until(app, "the button's place on the screen", |world| {
        let node = world.get::<ComputedNode>(button);
        node.is_some_and(|node| node.size().min_element() > 0.0)
    });
    let at = app.world().get::<UiGlobalTransform>(button);
    let position = at.expect("a node has a place").translation;
    assert!(position.cmpgt(Vec2::ZERO).all() && position.cmplt(SIZE.as_vec2()).all());
    let mut windows = app
        .world_mut()
        .query_filtered::<Entity, With<PrimaryWindow>>();
    let window = windows.single(app.world()).expect("one window");
    app.world_mut()
        .write_message(WindowEvent::CursorMoved(CursorMoved {
            window,
            position,
            delta: None,
        }));
    app.update();
    for state in [ButtonState::Pressed, ButtonState::Released] {
        app.world_mut()
            .write_message(WindowEvent::MouseButtonInput(MouseButtonInput {
                button: MouseButton::Left,
                state,
                window,
            }));
        app.update();
    }
}

fn shows(world: &mut World, part: &str) -> bool {
    let mut texts = world.query::<&Text>();
    texts.iter(world).any(|text| text.0.contains(part))
}

#[test]
fn a_click_on_unload_unloads_the_model() {
    let mut app = app();
    // What is given back is the process's: the other tests' models of 4 MiB come and go meanwhile.
    let model = FakeModel::new("sprites").tensors(16, 1 << 20);
    load(&mut app, &model);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    app.update();
    assert!(shows(app.world_mut(), "67.1 MB claimed"));
    click(&mut app, "Unload");
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    app.update();
    assert!(shows(app.world_mut(), "0 B claimed"));
    let report = app.world().resource::<ModelManager<Fake>>().last_release;
    assert!(shows(app.world_mut(), "MB given back"), "{report:?}");
    assert_eq!(
        model.log().last().map(|event| event.place),
        Some(Place::Drop)
    );
}

#[test]
fn a_panel_may_go_in_the_frame_in_which_its_buttons_change() {
    let mut app = app_with(|app| {
        app.add_systems(Update, despawn_panels_once_loaded);
    });
    load(&mut app, &FakeModel::new("sprites"));
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    app.update();
    let mut panels = app.world_mut().query::<&ModelPanel>();
    assert_eq!(panels.iter(app.world()).count(), 0);
}

fn despawn_panels_once_loaded(
    manager: Res<ModelManager<Fake>>,
    panels: Query<Entity, With<ModelPanel>>,
    mut commands: Commands,
) {
    if manager.current_state == ModelState::Loaded {
        for panel in &panels {
            commands.entity(panel).despawn();
        }
    }
}

#[test]
fn a_click_on_cancel_ends_a_load_and_load_brings_it_back() {
    let (mut app, gate) = (app(), Gate::closed());
    load(&mut app, &FakeModel::new("sprites").gate_reads(&gate));
    run_until(&mut app, "a reader at the gate", |_| gate.waiting() > 0);
    click(&mut app, "Cancel");
    gate.open();
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    click(&mut app, "Load");
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
}

#[test]
fn a_failure_shows_why_and_can_be_tried_again() {
    let mut app = app();
    load(&mut app, &FakeModel::new("sprites").fail_in(Place::Build));
    run_until_state::<Fake>(&mut app, ModelState::Failed);
    app.update();
    assert!(shows(app.world_mut(), "scripted failure in Build"));
    let generation = app.world().resource::<ModelManager<Fake>>().generation;
    click(&mut app, "Reload");
    run_until(&mut app, "another try", |world| {
        world.resource::<ModelManager<Fake>>().generation > generation
    });
}

#[test]
fn a_button_that_would_do_nothing_does_nothing() {
    let mut app = app();
    app.update();
    let unload = button(app.world_mut(), "Unload").expect("the panel has one");
    assert!(app.world().get::<InteractionDisabled>(unload).is_some());
    for label in ["Load", "Cancel", "Unload", "Reload"] {
        click(&mut app, label);
        assert_eq!(state(app.world()), ModelState::Idle, "{label}");
    }
}

#[test]
fn a_kind_whose_manager_is_gone_from_the_start_shifts_no_other() {
    let mut app = app_with(|app| {
        app.add_plugins(ModelPlugin::<Fake<1>>::default());
        app.world_mut().remove_resource::<ModelManager<Fake>>();
    });
    let model = FakeModel::new("other");
    let mut manager = app.world_mut().resource_mut::<ModelManager<Fake<1>>>();
    manager.load(model.source());
    run_until_state::<Fake<1>>(&mut app, ModelState::Loaded);
    app.update();
    click(&mut app, "Unload");
    run_until_state::<Fake<1>>(&mut app, ModelState::Idle);
}
