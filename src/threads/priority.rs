//! Which threads come first.

#[cfg(not(target_family = "wasm"))]
use thread_priority::{ThreadPriority, set_current_thread_priority};
#[cfg(not(target_family = "wasm"))]
use tracing::debug;

/// Of the threads that compute, below the game's own: 50 is what a thread has by default, 25 is a niceness of 10 on
/// Linux.
pub(crate) const COMPUTES: u8 = 25;

/// Of the threads that read, below those that compute: a job is not to wait for another model's load.
pub(crate) const READS: u8 = 12;

#[cfg(not(target_family = "wasm"))]
pub(super) fn lower_priority(priority: u8) {
    let priority = priority.try_into().expect("the priority is below 100");
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority)) {
        debug!("failed to lower the priority of a thread: {error:?}");
    }
}

/// The web has no threads to lower.
#[cfg(target_family = "wasm")]
pub(super) fn lower_priority(_priority: u8) {}
