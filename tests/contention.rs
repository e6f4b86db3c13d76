//! Deadlocks and lost wake-ups that other schedulers had: everybody is served or refused, nobody waits for ever.

mod support {
    pub mod kinds;
}

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place, run_until},
};
use support::kinds::*;

#[test]
fn of_two_loads_that_want_one_victim_both_are_served() {
    let (a, b, c) = (
        FakeModel::new("a"),
        FakeModel::new("b"),
        FakeModel::new("c"),
    );
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    ask::<2>(&mut app, &c);
    run_until(&mut app, "both", |world| {
        let loaded = |reasons: Vec<R>| reasons.contains(&R::LoadCompleted);
        let of = |world: &World| {
            use bevy_candle::test_kit::{Fake, Recorder};
            let second = world.resource::<Recorder<Fake<1>>>().edges();
            let third = world.resource::<Recorder<Fake<2>>>().edges();
            [second, third].map(|edges| edges.into_iter().map(|edge| edge.2).collect())
        };
        of(world).into_iter().all(loaded)
    });
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
    let loaded = u32::from(state::<1>(app.world()).is_loaded())
        + u32::from(state::<2>(app.world()).is_loaded());
    assert_eq!(loaded, 1, "there is room for one");
    assert_eq!(in_use(&app), 4 * MIB);
}

#[test]
fn two_loads_share_the_room_of_one_large_victim() {
    let large = FakeModel::new("large").tensors(8, 1 << 18);
    let (b, c, d) = (
        FakeModel::new("b"),
        FakeModel::new("c"),
        FakeModel::new("d"),
    );
    let mut app = app(12 * MIB);
    add_kind::<3>(&mut app, ModelPlugin::default());
    load::<3>(&mut app, &d);
    load::<0>(&mut app, &large);
    let used = job::<3>(&mut app, steps(1));
    assert!(ended(&mut app, used).is_ok());
    ask::<1>(&mut app, &b);
    ask::<2>(&mut app, &c);
    run_until(&mut app, "both", |world| {
        state::<1>(world).is_loaded() && state::<2>(world).is_loaded()
    });
    assert_eq!(state::<3>(app.world()), ModelState::Loaded, "one eviction");
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
}

#[test]
fn with_everything_pinned_loads_and_jobs_are_refused_at_once() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = app(5 * MIB);
    manager::<0>(&mut app).residency_mut().pinned = true;
    load::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    let waits = job::<1>(&mut app, steps(1));
    let error = ended(&mut app, waits);
    assert!(
        matches!(&error, Err(InferError::ModelFailed(error)) if matches!(**error, LoadError::OverBudget { .. })),
        "{error:?}"
    );
    let large = FakeRequest {
        memory: 2 * MIB,
        ..steps(1)
    };
    let refused = job::<0>(&mut app, large);
    assert!(matches!(
        ended(&mut app, refused),
        Err(InferError::OverBudget { .. })
    ));
    let fits = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, fits).is_ok());
}

#[test]
fn a_load_that_waits_is_refused_when_its_victim_is_pinned() {
    let (mut app, gate, running) = busy_app(4 * MIB);
    ask::<1>(&mut app, &FakeModel::new("b"));
    run_until_waiting::<1>(&mut app);
    manager::<0>(&mut app).residency_mut().pinned = true;
    run_until_kind::<1>(&mut app, ModelState::Failed);
    let next = job::<0>(&mut app, steps(1));
    gate.open();
    assert!(ended(&mut app, running).is_ok());
    assert!(ended(&mut app, next).is_ok(), "the model takes jobs again");
    assert_eq!(reasons::<0>(&app), [R::LoadRequested, R::LoadCompleted]);
}

#[test]
fn when_a_waiter_leaves_its_victim_stays_and_takes_jobs_again() {
    let (mut app, gate, running) = busy_app(4 * MIB);
    ask::<1>(&mut app, &FakeModel::new("b"));
    run_until_waiting::<1>(&mut app);
    let next = job::<0>(&mut app, steps(1));
    manager::<1>(&mut app).cancel();
    run_until_kind::<1>(&mut app, ModelState::Idle);
    gate.open();
    assert!(ended(&mut app, running).is_ok());
    assert!(ended(&mut app, next).is_ok());
    assert_eq!(reasons::<0>(&app), [R::LoadRequested, R::LoadCompleted]);
}

#[test]
fn a_job_that_leaves_the_line_lets_the_next_one_through() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate_steps(&gate);
    let mut app = app(12 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &FakeModel::new("b"));
    let of = |memory| FakeRequest {
        memory: memory * MIB,
        ..steps(1)
    };
    let running = job::<0>(&mut app, of(2));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    let large = job::<1>(&mut app, of(3));
    run_until_in_line(&mut app);
    let small = job::<1>(&mut app, of(1));
    app.world_mut().despawn(large);
    assert!(ended(&mut app, small).is_ok(), "while the other still runs");
    assert!(end(app.world(), running).is_none());
    gate.open();
    assert!(ended(&mut app, running).is_ok());
}

#[test]
fn an_evicted_model_that_is_asked_for_while_it_unloads_comes_back() {
    for by_job in [true, false] {
        let gate = Gate::closed();
        let a = FakeModel::new("a").gate(Place::Drop, &gate);
        let mut app = app(4 * MIB);
        load::<0>(&mut app, &a);
        ask::<1>(&mut app, &FakeModel::new("b"));
        run_until(&mut app, "the drop", |_| gate.waiting() == 1);
        assert_eq!(state::<0>(app.world()), ModelState::Unloading);
        let back = by_job.then(|| job::<0>(&mut app, steps(1)));
        if !by_job {
            ask::<0>(&mut app, &a);
        }
        frames(&mut app, 5);
        assert_eq!(state::<0>(app.world()), ModelState::Unloading);
        gate.open();
        match back {
            Some(job) => assert!(ended(&mut app, job).is_ok()),
            None => run_until_kind::<0>(&mut app, ModelState::Loaded),
        }
        let asked = if by_job {
            R::JobRequested
        } else {
            R::LoadRequested
        };
        assert_eq!(
            reasons::<0>(&app)[2..],
            [R::Evicted, R::UnloadCompleted, asked, R::LoadCompleted]
        );
    }
}

#[test]
fn two_jobs_that_each_need_the_others_model_gone_are_both_served() {
    let mut app = app(10 * MIB);
    load::<0>(&mut app, &FakeModel::new("a"));
    load::<1>(&mut app, &FakeModel::new("b"));
    let large = FakeRequest {
        memory: 6 * MIB,
        ..steps(3)
    };
    for _ in 0..5 {
        let jobs = [job::<0>(&mut app, large), job::<1>(&mut app, large)];
        for job in jobs {
            assert!(ended(&mut app, job).is_ok());
        }
    }
}

#[test]
fn models_that_displace_each_other_all_serve_their_jobs() {
    for room in [4, 6, 8] {
        let mut app = app(room * MIB);
        ask::<0>(&mut app, &FakeModel::new("a"));
        ask::<1>(&mut app, &FakeModel::new("b"));
        ask::<2>(&mut app, &FakeModel::new("c"));
        let request = |i: u64| FakeRequest {
            memory: (i % 3) * MIB * u64::from(room > 4),
            ..steps(2)
        };
        let jobs: Vec<_> = (0..60)
            .map(|i| match i % 3 {
                0 => job::<0>(&mut app, request(i / 3)),
                1 => job::<1>(&mut app, request(i / 3)),
                _ => job::<2>(&mut app, request(i / 3)),
            })
            .collect();
        for job in jobs {
            let end = ended(&mut app, job);
            assert!(end.is_ok(), "{end:?}");
        }
        assert!(in_use(&app) <= room * MIB);
    }
}

#[test]
fn jobs_that_keep_coming_do_not_starve_a_load() {
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &FakeModel::new("a"));
    ask::<1>(&mut app, &FakeModel::new("b"));
    let mut jobs = Vec::new();
    run_until(&mut app, "the load", |world| {
        let request = steps(1);
        let infer = Infer::<Fake>::new(request);
        jobs.push(world.spawn(infer).id());
        state::<1>(world).is_loaded()
    });
    for job in jobs {
        assert!(ended(&mut app, job).is_ok());
    }
}

#[test]
fn an_app_ends_while_loads_and_jobs_wait_for_memory() {
    let (mut app, _gate, _running) = busy_app(10 * MIB);
    load::<1>(&mut app, &FakeModel::new("b"));
    let large = FakeRequest {
        memory: 4 * MIB,
        ..steps(1)
    };
    let _waits = job::<1>(&mut app, large);
    ask::<2>(&mut app, &FakeModel::new("c"));
    run_until_in_line(&mut app);
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert_eq!(in_use(&app), 0);
    for state in [
        state::<0>(app.world()),
        state::<1>(app.world()),
        state::<2>(app.world()),
    ] {
        assert_eq!(state, ModelState::Idle);
    }
}

#[test]
fn the_end_of_an_app_waits_on_its_own_thread() {
    #[derive(Resource, Default)]
    struct Threads(std::sync::Mutex<std::collections::HashSet<std::thread::ThreadId>>);
    fn stay(threads: Res<Threads>) {
        std::thread::park_timeout(std::time::Duration::from_millis(2));
        let mut seen = threads.0.lock().expect("nobody panicked");
        seen.insert(std::thread::current().id());
    }
    let mut app = app(4 * MIB);
    app.init_resource::<Threads>();
    for _ in 0..20 {
        app.add_systems(CandleShutdown, stay.in_set(CandleSystems::Release));
    }
    app.update();
    app.world_mut().write_message(AppExit::Success);
    app.update();
    let seen = std::mem::take(&mut app.world_mut().resource_mut::<Threads>().0);
    let seen = seen.into_inner().expect("nobody panicked");
    assert_eq!(Vec::from_iter(seen), [std::thread::current().id()]);
}

#[test]
fn a_model_with_a_backlog_does_not_starve_one_that_was_loaded_for_a_job() {
    let mut app = app(10 * MIB);
    let large = FakeRequest {
        memory: 3 * MIB,
        ..steps(1)
    };
    load::<0>(&mut app, &FakeModel::new("a"));
    let mut backlog: Vec<_> = (0..4).map(|_| job::<0>(&mut app, large)).collect();
    run_until(&mut app, "the backlog", |world| {
        end(world, backlog[0]).is_some()
    });
    ask::<1>(&mut app, &FakeModel::new("b"));
    let waits = job::<1>(&mut app, large);
    run_until(&mut app, "the job of the other model", |world| {
        // Each model fits with its own job, and both do not fit with one.
        let open = backlog.iter().filter(|job| end(world, **job).is_none());
        if open.count() < 4 {
            let infer = Infer::<Fake>::new(large);
            backlog.push(world.spawn(infer).id());
        }
        end(world, waits).is_some()
    });
    assert!(ended(&mut app, waits).is_ok());
    for job in backlog {
        assert!(ended(&mut app, job).is_ok());
    }
}

#[test]
fn jobs_that_a_draining_model_left_waiting_end_with_it_and_run_on_no_other() {
    let requests: [fn(&mut App); 3] = [
        |app| ask::<0>(app, &FakeModel::new("other")),
        |app| manager::<0>(app).reload(),
        |app| manager::<0>(app).unload(),
    ];
    for request in requests {
        let (mut app, _gate, running) = busy_app(4 * MIB);
        ask::<1>(&mut app, &FakeModel::new("b"));
        run_until_waiting::<1>(&mut app);
        let waits = job::<0>(&mut app, steps(1));
        app.update();
        request(&mut app);
        for job in [running, waits] {
            let end = ended(&mut app, job);
            assert!(matches!(end, Err(InferError::Unloaded)), "{end:?}");
        }
    }
}

#[test]
fn a_higher_priority_comes_first_in_the_line() {
    let (mut app, gate, running) = busy_app(4 * MIB);
    manager::<2>(&mut app).residency_mut().priority = 1;
    ask::<1>(&mut app, &FakeModel::new("b"));
    run_until_waiting::<1>(&mut app);
    ask::<2>(&mut app, &FakeModel::new("c"));
    run_until_waiting::<2>(&mut app);
    gate.open();
    run_until(&mut app, "one of them", |world| {
        state::<1>(world).is_loaded() || state::<2>(world).is_loaded()
    });
    assert_eq!(state::<2>(app.world()), ModelState::Loaded);
    assert!(ended(&mut app, running).is_ok());
}

#[test]
fn a_budget_that_is_lowered_refuses_who_waits_in_vain() {
    let (mut app, gate, running) = busy_app(4 * MIB);
    ask::<1>(&mut app, &FakeModel::new("b"));
    run_until_waiting::<1>(&mut app);
    lower_budget(&mut app, 3 * MIB);
    run_until_kind::<1>(&mut app, ModelState::Failed);
    gate.open();
    assert!(ended(&mut app, running).is_ok());
    run_until_kind::<0>(&mut app, ModelState::Idle);
}

#[test]
fn a_budget_that_is_lowered_during_a_load_lets_it_finish_and_go() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate_reads(&gate);
    let mut app = app(4 * MIB);
    ask::<0>(&mut app, &a);
    run_until(&mut app, "the readers", |_| gate.waiting() > 0);
    lower_budget(&mut app, MIB);
    frames(&mut app, 5);
    assert_eq!(state::<0>(app.world()), ModelState::Loading);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
}
