//! Models without a job go when their time is over, and a job brings them back.

use std::time::Duration;

use TransitionReason as R;
use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, run_until, wait_until},
};

use crate::kinds::*;

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
            // Its result is sent right after that, and nobody hears of it before the next frame.
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
