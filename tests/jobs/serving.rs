//! How a loaded model serves its jobs: their order, settings, steps and ends.

use bevy_candle::test_kit::{Gate, Place, run_until_state, wait_until};

use super::*;

#[test]
fn a_loaded_model_serves_first_come_first_served() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    let jobs: Vec<_> = (1..=5).map(|n| spawn(&mut app, steps(n))).collect();
    run_until_ends(&mut app, 5);
    let seen: Vec<_> = ends(&app).iter().map(|(entity, _)| *entity).collect();
    assert_eq!(seen, jobs);
}

#[test]
fn an_unload_ends_the_running_and_the_queued_jobs_before_idle_shows() {
    for request in [
        ModelManager::unload,
        ModelManager::reload,
        |manager: &mut ModelManager<Fake>| {
            manager.load(FakeModel::new("b").source());
        },
    ] {
        let mut app = app();
        let gate = Gate::closed();
        load(&mut app, &FakeModel::new("a").gate_steps(&gate));
        let (running, queued) = (spawn(&mut app, steps(2)), spawn(&mut app, steps(2)));
        run_until(&mut app, "the first step", |_| gate.waiting() == 1);
        request(&mut manager(&mut app));
        run_until_state::<Fake>(&mut app, ModelState::Idle);
        let seen: Vec<_> = ends(&app).iter().map(|(entity, _)| *entity).collect();
        assert_eq!(seen, [running, queued]);
        assert!(
            ends(&app)
                .iter()
                .all(|(_, result)| matches!(result, Err(InferError::Unloaded)))
        );
        gate.open();
    }
}

#[test]
fn a_panic_ends_one_job_and_the_model_goes_on() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    spawn(
        &mut app,
        FakeRequest {
            panic: true,
            ..default()
        },
    );
    spawn(
        &mut app,
        FakeRequest {
            fail: true,
            ..default()
        },
    );
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 3);
    let [(_, panicked), (_, failed), (_, fine)] = ends(&app) else {
        panic!("three ends")
    };
    assert!(matches!(panicked, Err(InferError::Panicked(message)) if message == "asked to panic"));
    assert!(matches!(failed, Err(InferError::Failed(_))));
    assert!(fine.is_ok());
    assert!(manager(&mut app).current_state.is_loaded());
}

#[test]
fn settings_are_taken_when_the_job_is_inserted_and_survive_a_reload() {
    let mut app = app();
    manager(&mut app).settings_mut().value = 1;
    load(&mut app, &FakeModel::new("a"));
    spawn(&mut app, steps(1));
    manager(&mut app).settings_mut().value = 2;
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 2);
    manager(&mut app).reload();
    run_until_state::<Fake>(&mut app, ModelState::Loading);
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 3);
    let values: Vec<_> = ends(&app)
        .iter()
        .map(|(_, result)| result.as_ref().unwrap().settings.value)
        .collect();
    assert_eq!(values, [1, 2, 2]);
}

#[test]
fn steps_count_from_one_and_previews_come_only_when_asked_for() {
    let mut app = app();
    let gate = Gate::closed();
    load(&mut app, &FakeModel::new("a").gate_steps(&gate));
    let entity = app
        .world_mut()
        .spawn(Infer::<Fake>::new(steps(4)).previews_every(2))
        .id();
    for step in 1..=4 {
        gate.let_pass(1);
        run_until(&mut app, "a step", |world| {
            world.resource::<Seen>().steps.len() == step
        });
    }
    run_until_ends(&mut app, 1);
    let expected = [
        (entity, 1, 4, None),
        (entity, 2, 4, Some(20)),
        (entity, 3, 4, None),
        (entity, 4, 4, Some(40)),
    ];
    assert_eq!(app.world().resource::<Seen>().steps, expected);

    app.world_mut().resource_mut::<Seen>().steps.clear();
    gate.open();
    spawn(&mut app, steps(4));
    run_until_ends(&mut app, 2);
    assert!(
        app.world()
            .resource::<Seen>()
            .steps
            .iter()
            .all(|(_, _, _, partial)| partial.is_none())
    );
}

#[test]
fn a_preview_that_a_later_step_overtook_goes_with_it() {
    let mut app = app();
    let gate = Gate::closed();
    load(&mut app, &FakeModel::new("a").gate_steps(&gate));
    app.world_mut()
        .spawn(Infer::<Fake>::new(steps(4)).previews_every(2));
    gate.let_pass(3);
    wait_until("three steps", || (gate.passed(), gate.waiting()) == (3, 1));
    app.update();
    gate.open();
    run_until_ends(&mut app, 1);
    let seen = &app.world().resource::<Seen>().steps;
    let seen: Vec<_> = seen
        .iter()
        .map(|(_, step, _, partial)| (*step, *partial))
        .collect();
    assert_eq!(seen, [(3, Some(20)), (4, Some(40))]);
}

#[test]
fn a_slow_game_sees_the_latest_step_and_every_end() {
    let mut app = app();
    // A job that comes when another one has just ended waits for the next frame.
    let gate = Gate::closed();
    let model = FakeModel::new("a").gate_steps(&gate);
    load(&mut app, &model);
    for _ in 0..3 {
        app.world_mut()
            .spawn(Infer::<Fake>::new(steps(50)).previews_every(1));
    }
    gate.open();
    let steps_done = || {
        model
            .log()
            .iter()
            .filter(|event| event.place == Place::Infer)
            .count()
    };
    wait_until("the jobs' steps", || steps_done() == 150);
    run_until_ends(&mut app, 3);
    let steps = &app.world().resource::<Seen>().steps;
    assert!(
        steps.len() <= 6,
        "an overwrite slot a job, not {} steps",
        steps.len()
    );
    assert!(
        steps.iter().any(|(_, step, ..)| *step == 50),
        "the latest is there"
    );
}
