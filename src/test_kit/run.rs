//! [`run_until`]: frames until something has happened.

use std::time::{Duration, Instant};

use bevy::prelude::*;

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
