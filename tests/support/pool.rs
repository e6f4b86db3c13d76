//! Bevy's pool for long tasks, with a single thread, and what holds that.

#![allow(dead_code, reason = "each test uses a part")]

use bevy::{
    app::{TaskPoolOptions, TaskPoolPlugin, TaskPoolThreadAssignmentPolicy},
    prelude::*,
    tasks::AsyncComputeTaskPool,
};
use bevy_candle::test_kit::{Gate, wait_until};

/// Bevy's pools as they are on a machine with few cores. The first app of the process decides.
pub fn one_thread() -> TaskPoolPlugin {
    let one = TaskPoolThreadAssignmentPolicy {
        min_threads: 1,
        max_threads: 1,
        percent: 1.0,
        on_thread_spawn: None,
        on_thread_destroy: None,
    };
    TaskPoolPlugin {
        task_pool_options: TaskPoolOptions {
            async_compute: one,
            ..default()
        },
    }
}

/// Somebody else's task, which holds the pool's only thread until this is dropped.
pub struct Blocked(Gate);

/// Blocks the pool's only thread.
pub fn block_pool() -> Blocked {
    let (gate, held) = (Gate::closed(), Gate::closed());
    let blocker = (gate.clone(), held.clone());
    let pool = AsyncComputeTaskPool::get();
    assert_eq!(pool.thread_num(), 1, "the pool has one thread");
    pool.spawn(async move {
        blocker.1.open();
        blocker.0.pass_blocking();
    })
    .detach();
    held.pass_blocking();
    wait_until("a pool that is held", || gate.waiting() == 1);
    Blocked(gate)
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.open();
    }
}
