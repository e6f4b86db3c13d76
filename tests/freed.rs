//! What a release says has come back: the heap is counted before anything is dropped.
//!
//! One test: the counter is the process's.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod support {
    pub mod kinds;
}

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{FakeModel, Gate, Place, run_until},
};
use support::kinds::*;

/// A model of 256 MiB that does not await there.
fn busy_in(place: Place, gate: &Gate) -> FakeModel {
    FakeModel::new("a")
        .tensors(64, 1 << 20)
        .block_in(place, gate)
}

fn assert_idle_with_the_memory_of_the_busy_one(app: &mut App) {
    run_until_kind::<0>(app, ModelState::Idle);
    let report = manager::<0>(app).last_release;
    let report = report.expect("what is let go reports");
    assert_eq!(report.claimed, 256 * MIB);
    // The rest of the app takes and leaves a little meanwhile.
    let freed = report.freed;
    assert!(freed.is_some_and(|freed| freed > 255 * MIB), "{report:?}");
}

#[test]
fn the_heap_is_counted_before_what_never_awaits_is_dropped() {
    let gate = Gate::closed();
    let mut app = app(257 * MIB);
    ask::<0>(&mut app, &busy_in(Place::WarmUp, &gate));
    run_until(&mut app, "the warm-up", |_| gate.waiting() == 1);
    manager::<0>(&mut app).cancel();
    frames(&mut app, 10);
    gate.open();
    assert_idle_with_the_memory_of_the_busy_one(&mut app);

    let gate = Gate::closed();
    // It ends right there: its owner finds that no job can come any more before it looks whether it is wanted.
    let a = busy_in(Place::Infer, &gate).fail_in(Place::Infer);
    load::<0>(&mut app, &a);
    job::<0>(&mut app, steps(1));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    manager::<0>(&mut app).unload();
    frames(&mut app, 10);
    gate.open();
    assert_idle_with_the_memory_of_the_busy_one(&mut app);
}
