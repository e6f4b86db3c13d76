//! Threads of ours: named, below the game's priority, shared by the apps of a process, and joined.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use thread_priority::{ThreadPriority, set_current_thread_priority};
use tracing::debug;

/// Of the threads that compute, below the game's own: 50 is what a thread has by default, 25 is a niceness of 10 on
/// Linux.
pub(crate) const COMPUTES: u8 = 25;

/// Of the threads that read, below those that compute: a job is not to wait for another model's load.
pub(crate) const READS: u8 = 12;

/// Threads that end together.
pub(crate) struct Threads {
    handles: Vec<(JoinHandle<()>, Arc<Listed>)>,
    running: Option<Sender<Infallible>>,
    ended: Receiver<Infallible>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        let (running, ended) = bounded(0);
        Self {
            handles: Vec::new(),
            running: Some(running),
            ended,
        }
    }

    /// Starts one more thread. Linux shows the first 15 bytes of its name.
    pub(crate) fn spawn(
        &mut self,
        name: String,
        priority: u8,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let running = self.running.clone();
        let listed = Arc::new(Listed::default());
        let own = listed.clone();
        let thread = Builder::new().name(name).spawn(move || {
            let _running = running;
            own.enter();
            lower_priority(priority);
            run();
        })?;
        self.handles.push((thread, listed));
        Ok(())
    }

    /// Waits until all have ended, which somebody must have asked them for. Returns the names of those
    /// that have not by the deadline; they are left behind.
    pub(crate) fn join(&mut self, deadline: Instant) -> Vec<String> {
        self.running = None;
        let all_ended = self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
        let mut left = Vec::new();
        for (thread, listed) in self.handles.drain(..) {
            if all_ended || thread.is_finished() {
                let _ = thread.join();
                listed.wait_until_gone(deadline);
            } else {
                left.push(thread.thread().name().unwrap_or("unnamed").to_owned());
            }
        }
        left
    }
}

/// A deadline that is `timeout` away, or a day where that overflows the clock.
pub(crate) fn deadline_in(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or_else(|| now + Duration::from_secs(86_400))
}

/// Where the system lists a thread. Linux lets a join return a moment before the thread leaves the list,
/// and a game that counts its threads after the end of the app should not see ours.
#[derive(Default)]
struct Listed(OnceLock<PathBuf>);

impl Listed {
    /// Called on the thread itself.
    fn enter(&self) {
        if let Ok(entry) = std::fs::read_link("/proc/thread-self") {
            let _ = self.0.set(Path::new("/proc").join(entry));
        }
    }

    fn wait_until_gone(&self, deadline: Instant) {
        let is_listed = || self.0.get().is_some_and(|entry| entry.exists());
        while is_listed() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn lower_priority(priority: u8) {
    let priority = priority.try_into().expect("the priority is below 100");
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority)) {
        debug!("failed to lower the priority of a thread: {error:?}");
    }
}

/// What the apps of a process share: made by the first, gone with the last.
pub(crate) struct Shared<K, T>(Mutex<Vec<(K, Weak<T>)>>);

impl<K: PartialEq, T> Shared<K, T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the living one, or makes it where there is none that works. One that does not work is retired: it may be
    /// its last holder who looks, and its drop may join threads.
    pub(crate) fn get<E>(
        &self,
        key: K,
        works: impl Fn(&T) -> bool,
        retire: impl FnOnce(Arc<T>),
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, weak)| weak.strong_count() > 0);
        let found = known.iter().position(|(other, _)| *other == key);
        match found.and_then(|found| known[found].1.upgrade()) {
            Some(living) if works(&living) => return Ok(living),
            Some(dead) => retire(dead),
            None => {}
        }
        let made = Arc::new(make()?);
        known.retain(|(other, _)| *other != key);
        known.push((key, Arc::downgrade(&made)));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_end_in_time_is_named_and_left() {
        let (open, gate) = bounded::<()>(0);
        let mut threads = Threads::new();
        threads
            .spawn("stuck".into(), COMPUTES, move || _ = gate.recv())
            .expect("a thread");
        assert_eq!(
            threads.join(Instant::now() + Duration::from_millis(10)),
            ["stuck"]
        );
        drop(open);
    }

    #[test]
    fn threads_that_end_are_joined() {
        let mut threads = Threads::new();
        threads
            .spawn("short".into(), COMPUTES, || {})
            .expect("a thread");
        assert!(
            threads
                .join(Instant::now() + Duration::from_secs(10))
                .is_empty()
        );
    }

    #[test]
    fn what_is_shared_is_made_once_and_gone_with_the_last() {
        static SHARED: Shared<u8, u32> = Shared::new();
        let get = |key, make| SHARED.get(key, |_| true, drop, || make);
        let first = get(1, Ok(7)).expect("made");
        let same = get(1, Err(())).expect("found");
        assert_eq!(*same, 7);
        assert!(get(2, Err(())).is_err(), "another key is another thing");
        drop((first, same));
        assert!(get(1, Err(())).is_err(), "it is gone with the last");
    }

    #[test]
    fn what_does_not_work_any_more_is_made_anew() {
        static SHARED: Shared<u8, u32> = Shared::new();
        let works = |value: &u32| *value != 7;
        let broken = SHARED.get(1, works, drop, || Ok::<_, ()>(7)).expect("made");
        assert!(SHARED.get(1, works, drop, || Err(())).is_err());
        let fresh = SHARED.get(1, works, drop, || Ok::<_, ()>(8)).expect("made");
        let same = SHARED.get(1, works, drop, || Err(())).expect("found");
        assert_eq!((*broken, *fresh, *same), (7, 8, 8));
    }
}
