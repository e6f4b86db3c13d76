//! Plugins work in any order, with Bevy's minimal and default ones.

use bevy::{app::PluginGroupBuilder, log::LogPlugin, prelude::*};
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, run_until},
};

/// The order of Bevy's plugins, `CandlePlugin` and `ModelPlugin`.
#[derive(Clone, Copy)]
enum Part {
    Bevy,
    Settings,
    Model,
}

use Part::{Bevy, Model, Settings};

const ORDERS: [[Part; 3]; 6] = [
    [Bevy, Settings, Model],
    [Bevy, Model, Settings],
    [Settings, Bevy, Model],
    [Settings, Model, Bevy],
    [Model, Bevy, Settings],
    [Model, Settings, Bevy],
];

fn assert_works(order: [Part; 3], add_bevy: fn(&mut App)) {
    let mut app = App::new();
    for part in order {
        match part {
            Bevy => add_bevy(&mut app),
            Settings => drop(app.add_plugins(CandlePlugin {
                memory_budget: Some(1 << 30),
                ..default()
            })),
            Model => drop(app.add_plugins(ModelPlugin::<Fake>::default())),
        }
    }
    app.finish();
    app.cleanup();
    assert_eq!(
        app.world().resource::<ResourceManager>().budget(),
        Some(1 << 30),
        "the settings count"
    );
    let model = FakeModel::new("model");
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until(&mut app, "the model", |world| {
        **world.resource::<State<StateOf<Fake>>>() == ModelState::Loaded
    });
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until(&mut app, "Idle", |world| {
        **world.resource::<State<StateOf<Fake>>>() == ModelState::Idle
    });
}

/// Bevy's default plugins, as far as a test has what they need.
fn default_plugins() -> PluginGroupBuilder {
    // The log is the process's: a second app cannot set it up.
    let plugins = DefaultPlugins.build().disable::<LogPlugin>();
    // The event loop is the main thread's, and the system may have no display.
    #[cfg(feature = "winit")]
    let plugins = plugins.disable::<bevy::winit::WinitPlugin>();
    // Nor a graphics driver.
    #[cfg(feature = "scenes")]
    let plugins = plugins.set(bevy::render::RenderPlugin {
        render_creation: bevy::render::settings::WgpuSettings {
            backends: None,
            ..default()
        }
        .into(),
        ..default()
    });
    plugins
}

#[test]
fn any_order_works_with_minimal_plugins() {
    for order in ORDERS {
        assert_works(order, |app| _ = app.add_plugins(MinimalPlugins));
    }
}

#[test]
fn any_order_works_with_default_plugins() {
    for order in ORDERS {
        assert_works(order, |app| _ = app.add_plugins(default_plugins()));
    }
}

#[test]
fn the_default_settings_hold_without_the_settings_plugin() {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>>::default(),
    ));
    assert_eq!(app.world().resource::<ResourceManager>().budget(), None);
    app.update();
}

#[test]
fn the_last_settings_count() {
    let mut app = App::new();
    app.add_plugins(MinimalPlugins)
        .add_plugins(CandlePlugin {
            memory_budget: Some(1),
            ..default()
        })
        .add_plugins(CandlePlugin {
            memory_budget: Some(2),
            ..default()
        });
    assert_eq!(app.world().resource::<ResourceManager>().budget(), Some(2));
}

#[test]
fn bevy_states_work_on_a_models_state() {
    #[derive(SubStates, Clone, PartialEq, Eq, Hash, Debug, Default)]
    #[source(Model = StateOf { state: ModelState::Loaded, .. })]
    enum Drawing {
        #[default]
        Waiting,
    }
    type Model = StateOf<Fake>;

    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        bevy::state::app::StatesPlugin,
        ModelPlugin::<Fake>::default(),
    ))
    .add_sub_state::<Drawing>();
    let loaded = ModelState::Loaded.of::<Fake>();
    let scoped = app.world_mut().spawn(DespawnOnExit(loaded)).id();
    #[derive(Resource, Default)]
    struct Frames(usize);
    app.init_resource::<Frames>().add_systems(
        Update,
        (|mut frames: ResMut<Frames>| frames.0 += 1).run_if(in_state(loaded)),
    );
    let model = FakeModel::new("model");
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until(&mut app, "the model", |world| {
        world
            .resource::<ModelManager<Fake>>()
            .current_state
            .is_loaded()
    });
    assert_eq!(
        app.world().resource::<State<Drawing>>().get(),
        &Drawing::Waiting,
        "in the same frame"
    );
    assert_eq!(app.world().resource::<Frames>().0, 1);
    assert!(app.world().get_entity(scoped).is_ok());
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    app.update();
    assert!(
        app.world().get_entity(scoped).is_err(),
        "despawned with the state"
    );
    assert!(!app.world().contains_resource::<State<Drawing>>());
}

#[test]
fn systems_for_the_end_may_be_added_before_the_plugins() {
    #[derive(Resource)]
    struct Told;
    let mut app = App::new();
    app.add_systems(CandleShutdown, |mut commands: Commands| {
        commands.insert_resource(Told);
    })
    .add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()));
    app.update();
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert!(app.world().contains_resource::<Told>());
}

#[test]
#[should_panic(expected = "start from `App::new()`")]
fn an_app_without_bevys_schedules_is_told_what_it_lacks() {
    App::empty().add_plugins(ModelPlugin::<Fake>::default());
}
