//! [`run_until`], [`run_until_state`], [`wait_until`]: until something has happened; [`lose_devices`], [`break_devices`].

use std::time::Duration;

use bevy::{platform::time::Instant, prelude::*};

use crate::{LoaderService, ModelManager, ModelState, Pipeline};

/// How long a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a frame is, so that workers get the processor.
const FRAME: Duration = Duration::from_micros(200);

/// Updates the app until `done` says so. Returns the number of frames.
///
/// # Panics
/// After half a minute, with what it waited for.
#[track_caller]
pub fn run_until(app: &mut App, what: &str, mut done: impl FnMut(&mut World) -> bool) -> usize {
    let deadline = Instant::now() + DEADLINE;
    let mut frames = 0;
    loop {
        app.update();
        frames += 1;
        if done(app.world_mut()) {
            return frames;
        }
        assert!(
            Instant::now() < deadline,
            "waited too long for {what} ({frames} frames)"
        );
        std::thread::park_timeout(FRAME);
    }
}

/// Updates the app until the models of kind `P` are in a state. Returns the number of frames.
///
/// # Panics
/// After half a minute.
#[track_caller]
pub fn run_until_state<P: Pipeline>(app: &mut App, state: ModelState) -> usize {
    run_until(app, &format!("{state:?}"), |world| {
        world.resource::<ModelManager<P>>().current_state == state
    })
}

/// Has the threads of an app's devices end, as if the devices were gone: what is on them is lost, and the next load
/// starts them anew. Devices are shared: so are losses.
pub fn lose_devices(app: &App) {
    app.world().resource::<LoaderService>().lose_devices();
}

/// Has an app's devices fail for good, as after an illegal address on a card: what is on them is lost, and they are not
/// started anew while an app of the process still uses them.
pub fn break_devices(app: &App, reason: &str) {
    app.world()
        .resource::<LoaderService>()
        .break_devices(reason);
}

/// Waits without a frame until `done` says so: for what workers do while the game stands still.
///
/// # Panics
/// After half a minute, with what it waited for.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(FRAME);
    }
}
