//! How long models stay: time-outs, pins, and parked models that come back without a read.

mod support {
    pub mod kinds;
}

use std::time::Duration;

use TransitionReason as R;
use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_candle::{
    Standing,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place, run_until, wait_until},
};
use support::kinds::*;

/// Ten frames of 100 ms.
const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn expiring() -> App {
    let mut app = app(64 * MIB);
    manager::<0>(&mut app).residency_mut().keep_alive = SECOND;
    app
}

#[test]
fn a_model_expires_after_its_time_without_a_job_and_a_job_brings_it_back() {
    let mut app = expiring();
    load::<0>(&mut app, &FakeModel::new("a"));
    let frames = run_until(&mut app, "the end", |world| !state::<0>(world).is_loaded());
    assert_eq!(frames, 10, "a second is ten frames");
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    let back = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, back).is_ok());
    assert_eq!(
        reasons::<0>(&app)[2..],
        [
            R::Expired,
            R::UnloadCompleted,
            R::JobRequested,
            R::LoadCompleted
        ]
    );
}

#[test]
fn the_time_counts_from_the_end_of_the_last_job() {
    let gate = Gate::closed();
    let mut app = expiring();
    load::<0>(&mut app, &FakeModel::new("a").gate_steps(&gate));
    let long = job::<0>(&mut app, steps(1));
    frames(&mut app, 30);
    assert_eq!(
        state::<0>(app.world()),
        ModelState::Loaded,
        "not while a job runs"
    );
    gate.open();
    assert!(ended(&mut app, long).is_ok());
    let frames = run_until(&mut app, "the end", |world| !state::<0>(world).is_loaded());
    assert_eq!(frames, 10);
}

#[test]
fn a_job_that_arrives_as_the_time_is_over_is_served() {
    let mut app = expiring();
    load::<0>(&mut app, &FakeModel::new("a"));
    frames(&mut app, 9);
    let in_time = job::<0>(&mut app, steps(1));
    frames(&mut app, 1);
    assert_eq!(
        state::<0>(app.world()),
        ModelState::Loaded,
        "the job was there first"
    );
    assert!(ended(&mut app, in_time).is_ok());
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    let late = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, late).is_ok());
    assert!(reasons::<0>(&app).contains(&R::JobRequested));
}

#[test]
fn without_a_time_out_a_model_stays_and_nothing_changes() {
    let mut app = expiring();
    load::<0>(&mut app, &FakeModel::new("a"));
    frames(&mut app, 2);
    let before = manager::<0>(&mut app).last_changed();
    frames(&mut app, 3);
    assert_eq!(manager::<0>(&mut app).last_changed(), before);
    manager::<0>(&mut app).residency_mut().keep_alive = None;
    frames(&mut app, 30);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
}

#[test]
fn a_pinned_model_is_not_evicted_and_an_unpinned_one_is() {
    let mut app = app(4 * MIB);
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    manager::<0>(&mut app).residency_mut().pinned = true;
    load::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    run_until_kind::<1>(&mut app, ModelState::Failed);
    manager::<0>(&mut app).residency_mut().pinned = false;
    manager::<1>(&mut app).reload();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
}

fn parking(budget: u64, keep_parked: usize) -> App {
    let mut app = app(budget);
    manager::<0>(&mut app).residency_mut().keep_parked = keep_parked;
    app
}

fn parked(app: &App) -> Vec<String> {
    let memory = app.world().resource::<ResourceManager>();
    let parked = memory.models().iter();
    let parked = parked.filter(|model| model.standing == Standing::Parked);
    parked.map(|model| model.model_id.to_string()).collect()
}

#[test]
fn switching_back_takes_the_ordinary_edges_one_frame_each_and_reads_nothing() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    // As many reads as its tensors need once: a second load would stand at the gate for ever.
    let reads = Gate::closed();
    reads.let_pass(4);
    let a = a.gate_reads(&reads);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    assert_eq!(parked(&app), ["a"]);
    let device = app.world().resource::<ResourceManager>().devices()[0].clone();
    assert_eq!((device.in_use, device.parked), (8 * MIB, 4 * MIB));
    let done = a.log().len();
    ask::<0>(&mut app, &a);
    let shown: Vec<_> = (0..4)
        .map(|_| {
            app.update();
            state::<0>(app.world())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ModelState::Unloading,
            ModelState::Idle,
            ModelState::Loading,
            ModelState::Loaded
        ]
    );
    assert_eq!(manager::<0>(&mut app).sample_size, Some(UVec2::new(8, 4)));
    assert_eq!(manager::<0>(&mut app).generation, 3);
    assert_eq!(parked(&app), ["b"]);
    assert_eq!(a.log().len(), done, "nothing was built");
    let works = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, works).is_ok());
    assert_eq!(
        reasons::<0>(&app),
        [
            R::LoadRequested,
            R::LoadCompleted,
            R::Superseded,
            R::UnloadCompleted,
            R::LoadRequested,
            R::LoadCompleted,
            R::Superseded,
            R::UnloadCompleted,
            R::LoadRequested,
            R::LoadCompleted,
        ]
    );
}

#[test]
fn the_jobs_of_a_parked_model_end_and_its_memory_stays() {
    let gate = Gate::closed();
    let (a, b) = (FakeModel::new("a").gate_steps(&gate), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    let (running, queued) = (job::<0>(&mut app, steps(1)), job::<0>(&mut app, steps(1)));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    ask::<0>(&mut app, &b);
    assert!(matches!(
        ended(&mut app, running),
        Err(InferError::Unloaded)
    ));
    assert!(matches!(ended(&mut app, queued), Err(InferError::Unloaded)));
    run_until(&mut app, "b", |world| state::<0>(world).is_loaded());
    assert_eq!(parked(&app), ["a"]);
    gate.open();
    load::<0>(&mut app, &a);
    let works = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, works).is_ok());
}

#[test]
fn parked_models_go_first_and_the_load_never_exceeds_the_budget() {
    let (a, b, c) = (
        FakeModel::new("a"),
        FakeModel::new("b"),
        FakeModel::new("c"),
    );
    let mut app = parking(12 * MIB, 2);
    load::<1>(&mut app, &c);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    assert_eq!(parked(&app), ["a"]);
    let d = FakeModel::new("d");
    load::<2>(&mut app, &d);
    assert!(parked(&app).is_empty(), "what is parked goes first");
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
    let dropped = a
        .log()
        .iter()
        .filter(|event| event.place == Place::Drop)
        .count();
    assert_eq!(dropped, 1);
}

#[test]
fn only_so_many_are_parked_and_the_oldest_goes() {
    let models = ["a", "b", "c", "d"].map(FakeModel::new);
    let mut app = parking(64 * MIB, 2);
    for model in &models {
        switch::<0>(&mut app, model);
    }
    assert_eq!(parked(&app), ["b", "c"]);
    run_until(&mut app, "the bytes of a", |world| {
        world.resource::<ResourceManager>().in_use() == 12 * MIB
    });
    manager::<0>(&mut app).residency_mut().keep_parked = 1;
    run_until(&mut app, "the bytes of b", |world| {
        world.resource::<ResourceManager>().in_use() == 8 * MIB
    });
    assert_eq!(parked(&app), ["c"]);
}

#[test]
fn unload_takes_the_parked_models_along_and_idle_waits_for_them() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    app.update();
    assert!(
        app.world()
            .resource::<ResourceManager>()
            .models()
            .is_empty()
    );
}

#[test]
fn a_reload_of_one_model_leaves_the_parked_ones_alone() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    let built = |model: &FakeModel| {
        let log = model.log();
        log.iter()
            .filter(|event| event.place == Place::Build)
            .count()
    };
    manager::<0>(&mut app).reload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    assert_eq!((built(&a), built(&b)), (1, 2));
    assert_eq!(parked(&app), ["a"], "a reload of b leaves a alone");
}

#[test]
fn a_reload_reads_a_parked_model_again() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &b);
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    manager::<0>(&mut app).cancel();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(parked(&app), ["a"], "a cancel leaves parked models alone");
    manager::<0>(&mut app).reload();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    let log = a.log();
    let built = log.iter().filter(|event| event.place == Place::Build);
    assert_eq!(built.count(), 2);
}

#[test]
fn the_app_ends_with_parked_models_and_without_a_byte() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert_eq!(in_use(&app), 0);
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
    for model in [a, b] {
        let log = model.log();
        assert!(log.iter().any(|event| event.place == Place::Drop));
    }
}

#[test]
fn a_clock_that_jumps_expires_a_model_once() {
    let mut app = expiring();
    load::<0>(&mut app, &FakeModel::new("a"));
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_secs(
        3600,
    )));
    frames(&mut app, 2);
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::ZERO));
    run_until_kind::<0>(&mut app, ModelState::Idle);
    let expired = reasons::<0>(&app);
    let expired = expired.iter().filter(|reason| **reason == R::Expired);
    assert_eq!(expired.count(), 1);
}

#[test]
fn a_time_out_of_nothing_unloads_after_the_last_job() {
    let mut app = app(64 * MIB);
    manager::<0>(&mut app).residency_mut().keep_alive = Some(Duration::ZERO);
    ask::<0>(&mut app, &FakeModel::new("a"));
    let jobs = [job::<0>(&mut app, steps(2)), job::<0>(&mut app, steps(2))];
    for job in jobs {
        assert!(ended(&mut app, job).is_ok());
    }
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(
        reasons::<0>(&app),
        [
            R::LoadRequested,
            R::LoadCompleted,
            R::Expired,
            R::UnloadCompleted
        ]
    );
}

/// A long job of one kind ends while the game observes the end of a short one of another kind.
fn assert_stays<const LONG: usize, const SHORT: usize>() {
    let gate = Gate::closed();
    let mut app = app(64 * MIB);
    manager::<LONG>(&mut app).residency_mut().keep_alive = SECOND;
    let opened = gate.clone();
    app.add_observer(
        move |_: On<Inferred<Fake<SHORT>>>, memory: Res<ResourceManager>| {
            let running = memory.in_use();
            opened.open();
            wait_until("the end", || memory.in_use() < running);
            std::thread::sleep(Duration::from_millis(5));
        },
    );
    load::<LONG>(&mut app, &FakeModel::new("a").gate_steps(&gate));
    load::<SHORT>(&mut app, &FakeModel::new("b"));
    let memory = MIB;
    let long = job::<LONG>(&mut app, FakeRequest { memory, ..steps(1) });
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    frames(&mut app, 30);
    let short = job::<SHORT>(&mut app, steps(1));
    assert!(ended(&mut app, short).is_ok());
    assert!(ended(&mut app, long).is_ok());
    frames(&mut app, 5);
    assert_eq!(state::<LONG>(app.world()), ModelState::Loaded);
}

/// In one of the two orders, the ends of the long job's kind were taken in already.
#[test]
fn a_long_job_that_ends_in_the_middle_of_a_frame_does_not_expire_its_model() {
    assert_stays::<0, 1>();
    assert_stays::<1, 0>();
}

#[test]
fn idle_waits_for_a_model_that_was_to_be_parked_and_is_unloaded_instead() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Drop, &gate);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &FakeModel::new("b"));
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    manager::<0>(&mut app).unload();
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Unloading);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    assert!(manager::<0>(&mut app).last_release.is_some());
}

#[test]
fn a_failed_manager_is_reset_when_the_memory_of_its_parked_models_is_back() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Drop, &gate);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &FakeModel::new("b").fail_in(Place::Plan));
    run_until_kind::<0>(&mut app, ModelState::Failed);
    assert_eq!(parked(&app), ["a"]);
    manager::<0>(&mut app).unload();
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Failed);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
}

#[test]
fn a_lowered_budget_takes_parked_models_first() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(8 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    lower_budget(&mut app, 4 * MIB);
    run_until(&mut app, "the bytes", |world| {
        world.resource::<ResourceManager>().in_use() == 4 * MIB
    });
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
}
