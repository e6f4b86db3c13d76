//! A device whose thread ends takes its models along, and the next load starts it anew.
//!
//! One test, in steps: the device is the process's.

mod support {
    pub mod kinds;
}

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{FakeModel, Gate, Place, lose_devices, run_until},
};
use support::kinds::*;

#[track_caller]
fn assert_lost(app: &mut App) {
    run_until_kind::<0>(app, ModelState::Failed);
    let error = manager::<0>(app).last_error.clone();
    assert!(
        matches!(error.as_deref(), Some(LoadError::DeviceLost)),
        "{error:?}"
    );
    assert_eq!(in_use(app), 0);
}

#[track_caller]
fn assert_works(app: &mut App) {
    load::<0>(app, &FakeModel::new("good"));
    let job = job::<0>(app, steps(1));
    assert!(ended(app, job).is_ok());
    manager::<0>(app).unload();
    run_until_kind::<0>(app, ModelState::Idle);
}

#[test]
fn a_device_that_is_lost_fails_its_models_and_is_started_anew() {
    with_a_loaded_model_and_its_jobs();
    while_a_model_is_built();
    while_a_model_is_read();
    in_another_app();
    with_a_model_that_panics_when_it_is_dropped();
}

fn with_a_loaded_model_and_its_jobs() {
    let gate = Gate::closed();
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &FakeModel::new("a").gate_steps(&gate));
    let [runs, queued] = [(); 2].map(|()| job::<0>(&mut app, steps(1)));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    lose_devices(&app);
    let late = job::<0>(&mut app, steps(1));
    assert_lost(&mut app);
    for job in [runs, queued, late] {
        let end = ended(&mut app, job);
        let lost = matches!(model_error(&end), Some(LoadError::DeviceLost));
        assert!(lost, "{end:?}");
    }
    assert!(reasons::<0>(&app).contains(&R::ReleaseFailed));
    assert_works(&mut app);
}

/// Nobody asks for its end: the thread ends with the model on it, or the world goes in the middle of a step.
fn with_a_model_that_panics_when_it_is_dropped() {
    let model = FakeModel::new("a").panic_in(Place::Drop);
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &model);
    lose_devices(&app);
    assert_lost(&mut app);
    assert_works(&mut app);

    let gate = Gate::closed();
    load::<0>(&mut app, &model.gate_steps(&gate));
    job::<0>(&mut app, steps(1));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    drop(app);
    assert_works(&mut self::app(64 * MIB));
}

fn while_a_model_is_built() {
    let gate = Gate::closed();
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &FakeModel::new("a").gate(Place::Build, &gate));
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    lose_devices(&app);
    assert_lost(&mut app);
    assert_works(&mut app);
}

fn while_a_model_is_read() {
    let gate = Gate::closed();
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &FakeModel::new("a").gate_reads(&gate));
    run_until(&mut app, "a reader", |_| gate.waiting() > 0);
    lose_devices(&app);
    frames(&mut app, 20);
    assert_eq!(
        state::<0>(app.world()),
        ModelState::Loading,
        "a reader still holds a buffer"
    );
    gate.open();
    assert_lost(&mut app);
    assert_works(&mut app);
}

fn in_another_app() {
    let (mut one, mut two) = (app(64 * MIB), app(64 * MIB));
    load::<0>(&mut one, &FakeModel::new("one"));
    load::<0>(&mut two, &FakeModel::new("two"));
    lose_devices(&one);
    assert_lost(&mut two);
    assert_works(&mut two);
    assert_lost(&mut one);
    assert_works(&mut one);
}
