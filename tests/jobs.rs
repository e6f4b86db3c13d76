//! What becomes of an `Infer`, whatever the model is doing.

use std::sync::Arc;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{
        Fake, FakeModel, FakeOutput, FakeRequest, Gate, Place, run_until, run_until_state,
        wait_until,
    },
};

/// What the observers of one app saw, in order.
#[derive(Resource, Default)]
struct Seen {
    steps: Vec<(Entity, u32, u32, Option<u32>)>,
    ends: Vec<(Entity, Result<FakeOutput, InferError>)>,
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()))
        .init_resource::<Seen>()
        .add_observer(|step: On<InferStep<Fake>>, mut seen: ResMut<Seen>| {
            seen.steps
                .push((step.entity, step.step, step.steps, step.partial));
        })
        .add_observer(
            |mut done: On<Inferred<Fake>>, mut seen: ResMut<Seen>, jobs: Query<&Infer<Fake>>| {
                assert!(
                    !jobs.contains(done.entity),
                    "the component is removed first"
                );
                let entity = done.entity;
                seen.ends.push((entity, done.take()));
            },
        );
    app.update();
    app
}

fn manager(app: &mut App) -> Mut<'_, ModelManager<Fake>> {
    app.world_mut().resource_mut()
}

fn spawn(app: &mut App, request: FakeRequest) -> Entity {
    app.world_mut().spawn(Infer::<Fake>::new(request)).id()
}

fn steps(steps: u32) -> FakeRequest {
    FakeRequest { steps, ..default() }
}

fn load(app: &mut App, model: &FakeModel) {
    manager(app).load(model.source());
    run_until(app, "the model", |world| {
        world
            .resource::<ModelManager<Fake>>()
            .current_state
            .is_loaded()
    });
}

fn run_until_ends(app: &mut App, count: usize) {
    run_until(app, "the ends", |world| {
        world.resource::<Seen>().ends.len() >= count
    });
}

fn ends(app: &App) -> &[(Entity, Result<FakeOutput, InferError>)] {
    &app.world().resource::<Seen>().ends
}

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

#[test]
fn a_new_job_on_the_same_entity_replaces_the_old_one_in_silence() {
    let mut app = app();
    let gate = Gate::closed();
    load(&mut app, &FakeModel::new("a").gate_steps(&gate));
    let entity = spawn(&mut app, steps(7));
    run_until(&mut app, "the first step", |_| gate.waiting() == 1);
    app.world_mut()
        .entity_mut(entity)
        .insert(Infer::<Fake>::new(steps(2)));
    gate.open();
    run_until_ends(&mut app, 1);
    for _ in 0..10 {
        app.update();
    }
    assert!(matches!(ends(&app), [(e, Ok(output))] if *e == entity && output.steps == 2));
}

#[test]
fn a_despawned_or_removed_job_ends_in_silence_and_the_next_one_runs() {
    for despawn in [true, false] {
        let mut app = app();
        let gate = Gate::closed();
        load(&mut app, &FakeModel::new("a").gate_steps(&gate));
        let (running, queued, last) = (
            spawn(&mut app, steps(5)),
            spawn(&mut app, steps(5)),
            spawn(&mut app, steps(1)),
        );
        run_until(&mut app, "the first step", |_| gate.waiting() == 1);
        for entity in [running, queued] {
            if despawn {
                app.world_mut().despawn(entity);
            } else {
                app.world_mut().entity_mut(entity).remove::<Infer<Fake>>();
            }
        }
        gate.open();
        run_until_ends(&mut app, 1);
        for _ in 0..10 {
            app.update();
        }
        assert!(matches!(ends(&app), [(e, Ok(_))] if *e == last));
    }
}

#[test]
fn an_observer_can_insert_the_next_job_on_the_same_entity() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    let entity = spawn(&mut app, steps(1));
    app.world_mut().entity_mut(entity).observe(
        |done: On<Inferred<Fake>>, mut commands: Commands, seen: Res<Seen>| {
            if seen.ends.len() < 3 {
                commands
                    .entity(done.entity)
                    .insert(Infer::<Fake>::new(steps(1)));
            }
        },
    );
    run_until_ends(&mut app, 3);
    assert!(
        ends(&app)
            .iter()
            .all(|(e, result)| *e == entity && result.is_ok())
    );
}

#[test]
fn an_observer_that_unloads_shows_in_the_same_frame() {
    let mut app = app();
    load(&mut app, &FakeModel::new("a"));
    #[derive(Resource, Default)]
    struct Shown(Option<ModelState>);
    app.init_resource::<Shown>()
        .add_observer(
            |_: On<Inferred<Fake>>, mut manager: ResMut<ModelManager<Fake>>| manager.unload(),
        )
        .add_systems(
            Update,
            |seen: Res<Seen>, manager: Res<ModelManager<Fake>>, mut shown: ResMut<Shown>| {
                if seen.ends.len() == 1 {
                    shown.0.get_or_insert(manager.current_state);
                }
            },
        );
    spawn(&mut app, steps(1));
    run_until_ends(&mut app, 1);
    assert_eq!(
        app.world().resource::<Shown>().0,
        Some(ModelState::Unloading)
    );
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
