//! Which model a job waits for, and how it ends where there is none.

use std::sync::Arc;

use bevy_candle::test_kit::{Gate, Place, run_until_state};

use super::*;

#[test]
fn with_nothing_loaded_and_nothing_wanted_a_job_ends_in_the_next_frame() {
    let mut app = app();
    let entity = spawn(&mut app, steps(1));
    app.update();
    assert!(matches!(ends(&app), [(e, Err(InferError::NotLoaded))] if *e == entity));
    assert!(
        app.world().get_entity(entity).is_ok(),
        "the entity stays the game's"
    );
}

#[test]
fn while_a_load_is_wanted_a_job_waits() {
    let mut app = app();
    let gate = Gate::closed();
    let model = FakeModel::new("a").gate(Place::Build, &gate);
    let before = spawn(&mut app, steps(1));
    manager(&mut app).load(model.source());
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    let during = spawn(&mut app, steps(2));
    for _ in 0..10 {
        app.update();
    }
    assert!(ends(&app).is_empty(), "both wait");
    gate.open();
    run_until_ends(&mut app, 2);
    let seen: Vec<_> = ends(&app)
        .iter()
        .map(|(entity, result)| (*entity, result.as_ref().unwrap().steps))
        .collect();
    assert_eq!(seen, [(before, 1), (during, 2)], "first come, first served");
}

#[test]
fn while_another_load_is_wanted_a_job_waits_for_it() {
    let mut app = app();
    let (dropping, b) = (Gate::closed(), FakeModel::new("b").tensors(1, 1 << 16));
    load(&mut app, &FakeModel::new("a").gate(Place::Drop, &dropping));
    manager(&mut app).load(b.source());
    run_until(&mut app, "the drop of a", |_| dropping.waiting() == 1);
    assert_eq!(manager(&mut app).current_state, ModelState::Unloading);
    spawn(&mut app, steps(1));
    app.update();
    dropping.open();
    run_until_ends(&mut app, 1);
    assert!(
        matches!(ends(&app), [(_, Ok(output))] if output.tensors == 1),
        "b served it"
    );
}

#[test]
fn jobs_around_a_request_for_another_model_go_to_the_model_of_their_time() {
    let mut app = app();
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b").tensors(1, 1 << 16));
    load(&mut app, &a);
    let before = spawn(&mut app, steps(100_000));
    manager(&mut app).load(b.source());
    let after = spawn(&mut app, steps(1));
    manager(&mut app).load(b.source());
    run_until_ends(&mut app, 2);
    assert!(
        matches!(ends(&app), [(first, Err(InferError::Unloaded)), (second, Ok(output))]
            if (*first, *second) == (before, after) && output.tensors == 1),
        "{:?}",
        ends(&app)
    );
}

#[test]
fn a_job_comes_when_it_is_inserted_and_not_when_it_is_made() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    let early = Infer::<Fake>::new(steps(1));
    app.update();
    manager(&mut app).load(FakeModel::new("b").tensors(1, 1 << 16).source());
    app.world_mut().spawn(early);
    run_until_ends(&mut app, 1);
    assert!(matches!(ends(&app), [(_, Ok(output))] if output.tensors == 1));
}

#[test]
fn a_job_that_waits_for_a_swap_that_is_taken_back_runs_on_what_is_loaded() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a").tensors(3, 1 << 10));
    manager(&mut app).load(FakeModel::new("b").source());
    spawn(&mut app, steps(1));
    manager(&mut app).cancel();
    run_until_ends(&mut app, 1);
    assert!(matches!(ends(&app), [(_, Ok(output))] if output.tensors == 3));
}

#[test]
fn a_job_after_an_unload_was_asked_for_ends_with_the_model() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    manager(&mut app).unload();
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 1);
    assert!(matches!(ends(&app), [(_, Err(InferError::Unloaded))]));
}

#[test]
fn a_job_that_waits_for_a_cancelled_load_ends() {
    let mut app = app();
    let gate = Gate::closed();
    manager(&mut app).load(FakeModel::new("a").gate(Place::Build, &gate).source());
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    spawn(&mut app, steps(1));
    app.update();
    manager(&mut app).cancel();
    run_until_ends(&mut app, 1);
    assert!(matches!(ends(&app), [(_, Err(InferError::NotLoaded))]));
    gate.open();
}

#[test]
fn with_a_failed_model_a_job_ends_with_the_reason() {
    let mut app = app();
    let model = FakeModel::new("a").fail_in(Place::Build);
    manager(&mut app).load(model.source());
    spawn(&mut app, steps(1));
    run_until_state::<Fake>(&mut app, ModelState::Failed);
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 2);
    for (_, result) in ends(&app) {
        let Err(InferError::ModelFailed(error)) = result else {
            panic!("{result:?}")
        };
        let last = app
            .world()
            .resource::<ModelManager<Fake>>()
            .last_error
            .as_ref();
        assert!(
            last.is_some_and(|last| Arc::ptr_eq(last, error)),
            "it is the manager's last error"
        );
    }
}

#[test]
fn a_job_without_its_plugin_ends_with_not_loaded() {
    let mut app = App::new();
    app.add_plugins(MinimalPlugins)
        .init_resource::<Seen>()
        .add_observer(|mut done: On<Inferred<Fake>>, mut seen: ResMut<Seen>| {
            let entity = done.entity;
            seen.ends.push((entity, done.take()));
        });
    spawn(&mut app, steps(1));
    app.update();
    assert!(matches!(ends(&app), [(_, Err(InferError::NotLoaded))]));
}
