//! [`Listed`]: a thread in the system's list.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use bevy::platform::time::Instant;

/// Where the system lists a thread. Linux lets a join return a moment before the thread leaves the list,
/// and a game that counts its threads after the end of the app should not see ours.
#[derive(Default)]
pub(super) struct Listed(OnceLock<PathBuf>);

impl Listed {
    /// Called on the thread itself.
    pub(super) fn enter(&self) {
        if let Ok(entry) = fs::read_link("/proc/thread-self") {
            let _ = self.0.set(Path::new("/proc").join(entry));
        }
    }

    pub(super) fn wait_until_gone(&self, deadline: Instant) {
        let is_listed = || self.0.get().is_some_and(|entry| entry.exists());
        while is_listed() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}
