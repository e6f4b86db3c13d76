//! A device that its driver has given up fails its models, is shown as unusable and is not started anew.
//!
//! One test, in steps: the device is the process's.

mod support {
    pub mod kinds;
}

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{FakeModel, Gate, Place, break_devices, run_until},
};
use support::kinds::*;

/// What a driver would say.
const REASON: &str = "an illegal address";

#[track_caller]
fn assert_unusable(app: &mut App) {
    run_until_kind::<0>(app, ModelState::Failed);
    let error = manager::<0>(app).last_error.clone();
    assert!(
        matches!(error.as_deref(), Some(LoadError::DeviceUnusable { device, reason })
            if device == "Cpu" && reason == REASON),
        "{error:?}"
    );
    assert_eq!(in_use(app), 0);
}

#[track_caller]
fn assert_shown(app: &mut App) {
    run_until(app, "the device as unusable", |world| {
        let memory = world.resource::<ResourceManager>();
        memory.devices()[0].unusable.as_deref() == Some(REASON)
    });
}

/// An app whose plugins have finished, as those of an app that runs: it has opened its device, and has no model.
fn app_with_its_device() -> App {
    let mut app = app(64 * MIB);
    app.finish();
    app.cleanup();
    app
}

#[test]
fn a_device_that_is_given_up_is_not_started_anew() {
    let (mut one, mut two) = (app(64 * MIB), app_with_its_device());
    with_a_loaded_model_and_its_jobs(&mut one);
    assert_shown(&mut one);
    assert_shown(&mut two);
    the_next_load(&mut one);
    another_app(&mut two);
    an_app_that_comes_later();
    drop((one, two));
    a_new_start_of_the_game();
    while_a_model_is_unloaded();
}

fn with_a_loaded_model_and_its_jobs(app: &mut App) {
    let gate = Gate::closed();
    load::<0>(app, &FakeModel::new("a").gate_steps(&gate));
    let [runs, queued] = [(); 2].map(|()| job::<0>(app, steps(1)));
    run_until(app, "the job", |_| gate.waiting() == 1);
    break_devices(app, REASON);
    let late = job::<0>(app, steps(1));
    assert_unusable(app);
    for job in [runs, queued, late] {
        let end = ended(app, job);
        let is_told = matches!(model_error(&end), Some(LoadError::DeviceUnusable { reason, .. })
            if reason == REASON);
        assert!(is_told, "{end:?}");
    }
}

fn the_next_load(app: &mut App) {
    ask::<0>(app, &FakeModel::new("b"));
    run_until(app, "another load", |world| {
        world
            .resource::<ModelManager<bevy_candle::test_kit::Fake>>()
            .generation
            > 1
    });
    assert_unusable(app);
    assert_shown(app);
    let job = job::<0>(app, steps(1));
    assert!(matches!(ended(app, job), Err(InferError::ModelFailed(_))));
}

fn another_app(app: &mut App) {
    ask::<0>(app, &FakeModel::new("c"));
    assert_unusable(app);
    assert_shown(app);
}

fn an_app_that_comes_later() {
    assert_shown(&mut app_with_its_device());
}

/// As far as a process can: nobody uses the device any more.
fn a_new_start_of_the_game() {
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &FakeModel::new("d"));
    let memory = app.world().resource::<ResourceManager>();
    assert_eq!(memory.devices()[0].unusable, None);
}

/// Its memory is gone with the device, and nobody has released it.
fn while_a_model_is_unloaded() {
    let gate = Gate::closed();
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &FakeModel::new("e").gate(Place::Drop, &gate));
    manager::<0>(&mut app).unload();
    run_until(&mut app, "the drop", |_| gate.waiting() == 1);
    break_devices(&app, REASON);
    gate.open();
    assert_unusable(&mut app);
    assert_shown(&mut app);
    let reasons = reasons::<0>(&app);
    assert!(
        reasons.ends_with(&[R::UnloadRequested, R::ReleaseFailed]),
        "{reasons:?}"
    );
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
}
