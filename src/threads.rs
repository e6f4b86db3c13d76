//! Threads of ours: named, below the game's priority, and joined.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use bevy::platform::time::Instant;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

mod listed;
mod priority;

use listed::Listed;
use priority::lower_priority;
pub(crate) use priority::{COMPUTES, READS};

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
    /// that have not by the deadline; they are left behind, and not waited for again.
    pub(crate) fn join(&mut self, deadline: Instant) -> Vec<String> {
        self.running = None;
        if self.handles.is_empty() {
            return Vec::new();
        }
        let all_ended = receive_by(&self.ended, deadline) == Err(RecvTimeoutError::Disconnected);
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

/// Waits for what comes next, until the deadline. On the web nothing comes while somebody waits, and the clock that
/// channels read is not there.
pub(crate) fn receive_by<T>(from: &Receiver<T>, deadline: Instant) -> Result<T, RecvTimeoutError> {
    match from.try_recv() {
        Ok(next) => Ok(next),
        Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        Err(TryRecvError::Empty) if cfg!(target_family = "wasm") => Err(RecvTimeoutError::Timeout),
        Err(TryRecvError::Empty) => {
            from.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        }
    }
}

/// The processor's time that the calling thread has had; nothing where the system does not say.
pub(crate) fn cpu_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.try_into().unwrap_or_default()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    Duration::ZERO
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
        let again = Instant::now();
        assert!(threads.join(again + Duration::from_secs(60)).is_empty());
        assert!(
            again.elapsed() < Duration::from_secs(30),
            "it was waited for"
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
}
