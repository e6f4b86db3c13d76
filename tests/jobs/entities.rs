//! What a game does with the entity of a job, and in the observer of its end.

use bevy_candle::test_kit::Gate;

use super::*;

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
