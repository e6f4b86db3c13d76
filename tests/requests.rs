//! The request table of `ModelManager`, cell by cell.

mod support {
    pub mod scene;
}

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, Place, Recorder, run_until},
};
use support::scene::{Edge, Request, Row, Scene};

use ModelState::{Failed, Idle, Loaded, Loading, Unloading};
use TransitionReason as R;

/// Asks in a row, opens the gates, and expects these edges and no others.
#[track_caller]
fn check(row: Row, request: Request, expected: &[Edge]) -> Scene {
    let mut scene = Scene::at(row);
    let before = scene.state();
    scene.ask(request);
    for _ in 0..3 {
        scene.app.update();
    }
    // A load that nobody took back shall go on loading for the length of this test.
    if !matches!((row, expected), (Row::Loading, [])) {
        scene.building.open();
    }
    scene.dropping.open();
    run_until(&mut scene.app, "the expected edges", |world| {
        world.resource::<Recorder<Fake>>().transitions.len() >= expected.len()
    });
    for _ in 0..10 {
        scene.app.update();
    }
    assert_eq!(scene.edges(), expected);
    let mut recorder = scene.app.world_mut().resource_mut::<Recorder<Fake>>();
    recorder.transitions.clear();
    let last = expected.last().map_or(before, |(_, to, _)| *to);
    assert_eq!(scene.state(), last);
    scene
}

macro_rules! cells {
    ($($name:ident: $row:ident, $request:ident => $edges:expr, ends with $model:expr;)*) => {$(
        #[test]
        fn $name() {
            let scene = check(Row::$row, Request::$request, &$edges);
            assert_eq!(scene.model_id().as_deref(), $model);
        }
    )*};
}

const LOAD: [Edge; 2] = [
    (Idle, Loading, R::LoadRequested),
    (Loading, Loaded, R::LoadCompleted),
];

const STAY: [Edge; 0] = [];

const fn then_load(first: Edge) -> [Edge; 3] {
    [first, LOAD[0], LOAD[1]]
}

const fn unload_then_load(reason: R) -> [Edge; 4] {
    [
        (Loaded, Unloading, reason),
        (Unloading, Idle, R::UnloadCompleted),
        LOAD[0],
        LOAD[1],
    ]
}

const CANCELLED: Edge = (Loading, Idle, R::LoadCancelled);

const UNLOADED: Edge = (Unloading, Idle, R::UnloadCompleted);

cells! {
    idle_load_same: Idle, LoadSame => LOAD, ends with Some("a");
    idle_load_other: Idle, LoadOther => LOAD, ends with Some("b");
    idle_reload_loads_the_last_source: Idle, Reload => LOAD, ends with Some("a");
    idle_unload: Idle, Unload => STAY, ends with None;
    idle_cancel: Idle, Cancel => STAY, ends with None;

    loading_load_same: Loading, LoadSame => STAY, ends with Some("a");
    loading_load_other_supersedes: Loading, LoadOther => then_load((Loading, Idle, R::Superseded)), ends with Some("b");
    loading_reload: Loading, Reload => STAY, ends with Some("a");
    loading_unload_cancels: Loading, Unload => [CANCELLED], ends with None;
    loading_cancel: Loading, Cancel => [CANCELLED], ends with None;

    cancelling_load_same_waits: Cancelling, LoadSame => then_load(CANCELLED), ends with Some("a");
    cancelling_load_other_waits: Cancelling, LoadOther => then_load(CANCELLED), ends with Some("b");
    cancelling_reload_waits: Cancelling, Reload => then_load(CANCELLED), ends with Some("a");
    cancelling_unload: Cancelling, Unload => [CANCELLED], ends with None;
    cancelling_cancel: Cancelling, Cancel => [CANCELLED], ends with None;

    loaded_load_same: Loaded, LoadSame => STAY, ends with Some("a");
    loaded_load_other_supersedes: Loaded, LoadOther => unload_then_load(R::Superseded), ends with Some("b");
    loaded_reload: Loaded, Reload => unload_then_load(R::Reload), ends with Some("a");
    loaded_unload: Loaded, Unload => [(Loaded, Unloading, R::UnloadRequested), UNLOADED], ends with None;
    loaded_cancel: Loaded, Cancel => STAY, ends with Some("a");

    unloading_load_same_waits: Unloading, LoadSame => then_load(UNLOADED), ends with Some("a");
    unloading_load_other_waits: Unloading, LoadOther => then_load(UNLOADED), ends with Some("b");
    unloading_reload_waits: Unloading, Reload => then_load(UNLOADED), ends with Some("a");
    unloading_unload: Unloading, Unload => [UNLOADED], ends with None;
    unloading_cancel: Unloading, Cancel => [UNLOADED], ends with None;

    failed_load_other: Failed, LoadOther => [(Failed, Loading, R::LoadRequested), LOAD[1]], ends with Some("b");
    failed_reload_tries_at_once: Failed, Reload => TRIED_AGAIN, ends with None;
    failed_unload_resets: Failed, Unload => [(Failed, Idle, R::Reset)], ends with None;
    failed_cancel: Failed, Cancel => STAY, ends with None;
}

const TRIED_AGAIN: [Edge; 2] = [
    (Failed, Loading, R::LoadRequested),
    (Loading, Failed, R::LoadFailed),
];

#[test]
fn failed_load_same_tries_at_most_once_a_second() {
    let mut scene = Scene::at(Row::Failed);
    let since = Instant::now();
    for _ in 0..2 {
        run_until(&mut scene.app, "another try", |world| {
            let source = scene.a.source();
            world.resource_mut::<ModelManager<Fake>>().load(source);
            world.resource::<Recorder<Fake>>().transitions.len() >= 2
        });
        assert_eq!(scene.edges(), TRIED_AGAIN);
        scene
            .app
            .world_mut()
            .resource_mut::<Recorder<Fake>>()
            .transitions
            .clear();
    }
    let took = since.elapsed();
    assert!(
        took > Duration::from_millis(1_900),
        "two tries took {took:?}"
    );
}

#[test]
fn unloading_forgets_the_load_that_waits() {
    assert_forgets(Row::Unloading, UNLOADED);
}

#[test]
fn cancelling_forgets_the_load_that_waits() {
    assert_forgets(Row::Cancelling, CANCELLED);
}

#[track_caller]
fn assert_forgets(row: Row, edge: Edge) {
    for take_back in [Request::Unload, Request::Cancel] {
        let mut scene = Scene::at(row);
        scene.ask(Request::LoadOther);
        scene.app.update();
        scene.ask(take_back);
        scene.app.update();
        scene.open_gates();
        scene.run_until_state(Idle);
        for _ in 0..10 {
            scene.app.update();
        }
        assert_eq!(scene.edges(), [edge]);
    }
}

#[test]
fn requests_of_one_frame_collapse_into_the_last_intention() {
    let mut scene = Scene::at(Row::Loaded);
    for request in [Request::Unload, Request::LoadOther, Request::LoadSame] {
        scene.ask(request);
    }
    for _ in 0..10 {
        scene.app.update();
    }
    assert_eq!(
        scene.edges(),
        STAY,
        "unload and load again in one frame is still wanted"
    );
}

#[test]
fn cancel_keeps_what_is_loaded_and_leaves_idle_idle() {
    let mut scene = Scene::at(Row::Loaded);
    scene.ask(Request::LoadOther);
    scene.ask(Request::Cancel);
    for _ in 0..10 {
        scene.app.update();
    }
    assert_eq!(
        (scene.edges(), scene.model_id().as_deref()),
        (vec![], Some("a"))
    );

    let mut scene = Scene::at(Row::Idle);
    scene.ask(Request::LoadOther);
    scene.ask(Request::Cancel);
    for _ in 0..10 {
        scene.app.update();
    }
    assert_eq!(scene.edges(), STAY);
}

#[test]
fn a_load_that_finished_just_before_a_cancel_never_shows_loaded() {
    let mut scene = Scene::at(Row::Loading);
    scene.open_gates();
    // The worker finishes while this app stands still: another app's model, on the same thread, is
    // loaded after it.
    let mut other = Scene::new(FakeModel::new("other"));
    other.open_gates();
    other.ask(Request::LoadSame);
    other.run_until_state(Loaded);
    assert!(
        scene
            .a
            .log()
            .iter()
            .any(|event| event.place == Place::WarmUp),
        "it is built"
    );
    scene.ask(Request::Cancel);
    scene.run_until_state(Idle);
    assert_eq!(scene.edges(), [CANCELLED]);
}

#[test]
fn wanted_is_what_the_game_asked_for_last() {
    let mut scene = Scene::at(Row::Loaded);
    let wanted = |scene: &Scene| {
        scene
            .app
            .world()
            .resource::<ModelManager<Fake>>()
            .wanted
            .as_ref()
            .map(ToString::to_string)
    };
    assert_eq!(wanted(&scene).as_deref(), Some("a"));
    scene.ask(Request::LoadOther);
    assert_eq!(wanted(&scene).as_deref(), Some("b"));
    scene.ask(Request::Cancel);
    assert_eq!(wanted(&scene).as_deref(), Some("a"));
    scene.ask(Request::Unload);
    assert_eq!(wanted(&scene), None);
    scene.open_gates();
}

#[test]
fn an_idle_or_loaded_manager_is_not_changed_by_frames() {
    for row in [Row::Idle, Row::Loaded] {
        let mut scene = Scene::at(row);
        scene.app.update();
        #[derive(Resource, Default)]
        struct Changes(usize);
        scene.app.init_resource::<Changes>().add_systems(
            Update,
            |manager: Res<ModelManager<Fake>>, mut changes: ResMut<Changes>| {
                changes.0 += usize::from(manager.is_changed());
            },
        );
        scene.app.update();
        let first = scene.app.world().resource::<Changes>().0;
        for _ in 0..20 {
            scene.app.update();
        }
        assert_eq!(scene.app.world().resource::<Changes>().0, first);
        scene.open_gates();
    }
}
