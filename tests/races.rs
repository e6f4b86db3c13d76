//! Races that other model managers met, each as one test. Those about memory are in `contention.rs`, those about
//! time-outs in `residency/time_outs.rs`, those of requests in `requests.rs`, and the ends of loads in `cancel.rs`.

mod support {
    pub mod kinds;
    pub mod stops;
}

use std::thread;

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place, run_until, run_until_state, wait_until},
};
use support::{kinds::*, stops::stopping};

fn count(model: &FakeModel, place: Place) -> usize {
    let log = model.log();
    log.iter().filter(|event| event.place == place).count()
}

#[test]
fn many_who_ask_for_one_model_share_one_load() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Build, &gate);
    let mut app = app(64 * MIB);
    let mut jobs = Vec::new();
    for _ in 0..20 {
        ask::<0>(&mut app, &a);
        jobs.push(job::<0>(&mut app, steps(1)));
        app.update();
    }
    gate.open();
    for job in jobs {
        assert!(ended(&mut app, job).is_ok());
    }
    assert_eq!(count(&a, Place::Build), 1);
    assert_eq!(reasons::<0>(&app), [R::LoadRequested, R::LoadCompleted]);
}

#[test]
fn loads_that_both_fit_go_on_side_by_side() {
    let gates = [Gate::closed(), Gate::closed()];
    let [a, b] = [0, 1].map(|i| FakeModel::new(format!("{i}")).gate_reads(&gates[i]));
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    run_until(&mut app, "both readers", |_| {
        gates.iter().all(|gate| gate.waiting() > 0)
    });
    // The one that began last ends first.
    gates[1].open();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert_eq!(state::<0>(app.world()), ModelState::Loading);
    gates[0].open();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
}

/// An app with a load that has all the readers it may have, all before their first chunk, and how many these are.
fn app_with_a_stuck_load(gate: &Gate) -> (App, usize) {
    // Each tensor is a batch of its own, of eight chunks, and there are more than readers.
    let stuck = FakeModel::new("stuck").tensors(8, 2 << 20);
    let mut app = app(128 * MIB);
    ask::<0>(&mut app, &stuck.gate_reads(gate));
    let readers = thread::available_parallelism().map_or(3, |cores| cores.get().clamp(3, 4));
    run_until(&mut app, "all its readers", |_| gate.waiting() == readers);
    (app, readers)
}

#[test]
fn a_reader_that_has_read_a_batch_lets_others_go_first() {
    let (gate, planning) = (Gate::closed(), Gate::closed());
    let (mut app, readers) = app_with_a_stuck_load(&gate);
    // The one reader that is left is held, too.
    manager::<2>(&mut app).load(stopping(&FakeModel::new("c"), &planning));
    run_until(&mut app, "the plan", |_| planning.waiting() == 1);
    ask::<1>(&mut app, &FakeModel::new("b"));
    frames(&mut app, 10);
    let phase = |world: &World| world.resource::<ModelManager<Fake<1>>>().progress.phase;
    assert_eq!(phase(app.world()), LoadPhase::Planning);
    // So that one of the readers at least is done with its batch.
    gate.let_pass(7 * readers + 1);
    run_until(&mut app, "the plan of another load", |world| {
        phase(world) != LoadPhase::Planning
    });
    planning.open();
    gate.open();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
}

#[test]
fn a_load_does_not_stand_behind_one_whose_files_do_not_answer() {
    let gate = Gate::closed();
    let (mut app, _) = app_with_a_stuck_load(&gate);
    load::<1>(&mut app, &FakeModel::new("b"));
    assert_eq!(state::<0>(app.world()), ModelState::Loading);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
}

#[test]
fn when_one_of_two_waiting_jobs_leaves_the_load_goes_on_for_the_other() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Build, &gate);
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &a);
    let (leaves, stays) = (job::<0>(&mut app, steps(1)), job::<0>(&mut app, steps(1)));
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    app.world_mut().despawn(leaves);
    gate.open();
    assert!(ended(&mut app, stays).is_ok());
    assert!(end(app.world(), leaves).is_none());
    assert_eq!(reasons::<0>(&app), [R::LoadRequested, R::LoadCompleted]);
}

/// Only a request takes a load back: nobody who leaves does.
#[test]
fn when_the_last_waiting_job_leaves_the_load_goes_on_and_the_model_stays() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Build, &gate);
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &a);
    let leaves = job::<0>(&mut app, steps(1));
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    app.world_mut().despawn(leaves);
    frames(&mut app, 5);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    frames(&mut app, 5);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
}

#[test]
fn a_job_that_brings_an_evicted_model_back_and_leaves_does_not_wedge_it() {
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &FakeModel::new("a"));
    load::<1>(&mut app, &FakeModel::new("b"));
    run_until_kind::<0>(&mut app, ModelState::Idle);
    let leaves = job::<0>(&mut app, steps(1));
    run_until_kind::<0>(&mut app, ModelState::Loading);
    app.world_mut().despawn(leaves);
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    let next = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, next).is_ok());
}

#[test]
fn a_job_inserted_in_the_frame_of_an_eviction_is_served() {
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &FakeModel::new("a"));
    ask::<1>(&mut app, &FakeModel::new("b"));
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    let late = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, late).is_ok());
    let seen = reasons::<0>(&app);
    assert!(seen.contains(&R::Evicted) && seen.contains(&R::JobRequested));
}

#[test]
fn a_load_asked_for_as_the_time_is_over_finds_the_model_or_brings_it_back() {
    for frames_before in 8..13 {
        let a = FakeModel::new("a");
        let mut app = app(64 * MIB);
        manager::<0>(&mut app).residency_mut().keep_alive = Some(std::time::Duration::from_secs(1));
        load::<0>(&mut app, &a);
        frames(&mut app, frames_before);
        ask::<0>(&mut app, &a);
        let job = job::<0>(&mut app, steps(1));
        assert!(ended(&mut app, job).is_ok(), "{frames_before}");
    }
}

#[test]
fn a_second_unload_and_a_job_that_leaves_late_find_nothing_to_do() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate_steps(&gate);
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &a);
    let running = job::<0>(&mut app, steps(2));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    manager::<0>(&mut app).unload();
    app.world_mut().despawn(running);
    gate.open();
    frames(&mut app, 10);
    assert_eq!(
        reasons::<0>(&app)[2..],
        [R::UnloadRequested, R::UnloadCompleted]
    );
    assert_eq!((in_use(&app), count(&a, Place::Drop)), (0, 1));
}

/// Others answered that an unload was done while the cancelled job still held its memory, and the next owner
/// ran out of it.
#[test]
fn idle_waits_for_the_memory_of_a_job_that_was_cut_off() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Drop, &gate);
    let mut app = app(8 * MIB);
    load::<0>(&mut app, &a);
    let endless = FakeRequest {
        steps: u32::MAX,
        memory: 4 * MIB,
        ..default()
    };
    job::<0>(&mut app, endless);
    run_until(&mut app, "a step", |_| count(&a, Place::Infer) > 0);
    manager::<0>(&mut app).unload();
    ask::<1>(&mut app, &FakeModel::new("b").tensors(8, 1 << 18));
    run_until_waiting::<1>(&mut app);
    run_until(&mut app, "the drop", |_| gate.waiting() == 1);
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Unloading);
    assert!(in_use(&app) >= 4 * MIB);
    gate.open();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
    assert_eq!(in_use(&app), 8 * MIB);
}

#[test]
fn the_late_end_of_a_superseded_load_says_nothing_about_the_next() {
    let (reads, a) = (Gate::closed(), FakeModel::new("a"));
    let b = FakeModel::new("b");
    let mut app = app(64 * MIB);
    ask::<0>(&mut app, &a.gate_reads(&reads));
    run_until(&mut app, "a reader", |_| reads.waiting() > 0);
    ask::<0>(&mut app, &b);
    frames(&mut app, 5);
    assert_eq!(state::<0>(app.world()), ModelState::Loading);
    reads.open();
    run_until(&mut app, "the other model", |world| {
        let manager = world.resource::<ModelManager<Fake>>();
        manager.current_state.is_loaded() && manager.model_id.as_ref().is_some_and(|id| *id == "b")
    });
    assert_eq!(
        reasons::<0>(&app),
        [
            R::LoadRequested,
            R::Superseded,
            R::LoadRequested,
            R::LoadCompleted
        ]
    );
    assert_eq!(manager::<0>(&mut app).generation, 2);
}

#[test]
fn a_failed_load_leaves_nothing_behind_for_the_next() {
    let mut app = app(4 * MIB);
    for place in [Place::Plan, Place::Read, Place::Build, Place::WarmUp] {
        ask::<0>(
            &mut app,
            &FakeModel::new(format!("{place:?}")).fail_in(place),
        );
        run_until_kind::<0>(&mut app, ModelState::Failed);
        assert_eq!(in_use(&app), 0);
        load::<0>(&mut app, &FakeModel::new("good"));
        let job = job::<0>(&mut app, steps(1));
        assert!(ended(&mut app, job).is_ok());
    }
}

/// Sixteen apps on as many threads, which share the readers and the device.
#[test]
fn many_apps_load_and_unload_at_once() {
    const APPS: usize = 16;
    const CYCLES: usize = 64;
    let cycle = |number: usize| {
        let model = FakeModel::new(format!("{number}")).tensors(2, 1 << 14);
        let mut app = App::new();
        app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()));
        for turn in 0..CYCLES {
            let load = |world: &mut World| {
                world
                    .resource_mut::<ModelManager<Fake>>()
                    .load(model.source());
            };
            load(app.world_mut());
            // Some are taken back on the way.
            if turn % 3 == number % 3 {
                run_until_state::<Fake>(&mut app, ModelState::Loaded);
            }
            app.update();
            app.world_mut()
                .resource_mut::<ModelManager<Fake>>()
                .unload();
            run_until_state::<Fake>(&mut app, ModelState::Idle);
        }
        assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
        drop(app);
        wait_until("every model", || {
            count(&model, Place::Build) == count(&model, Place::Drop)
        });
    };
    thread::scope(|scope| {
        for number in 0..APPS {
            scope.spawn(move || cycle(number));
        }
    });
}

#[test]
fn a_plan_ends_at_its_next_read_where_nobody_wants_it_any_more() {
    let gate = Gate::closed();
    let source = stopping(&FakeModel::new("a"), &gate);
    let mut app = app(64 * MIB);
    manager::<0>(&mut app).load(source);
    run_until(&mut app, "the first read", |_| gate.waiting() == 1);
    manager::<0>(&mut app).cancel();
    app.update();
    // Before the read, and after it.
    gate.let_pass(2);
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!((gate.passed(), gate.waiting()), (2, 0));
}
