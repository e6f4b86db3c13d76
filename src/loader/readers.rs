//! [`Readers`]: the threads that read files and clean up, so that no pool of Bevy's is ever held.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use bevy::platform::time::Instant;
use crossbeam_channel::{Receiver, Sender, bounded, never, select_biased, unbounded};
use tracing::warn;

use crate::{
    LoadError,
    memory::clear_idle_heap,
    panics::{caught, drop_guarded, guarded},
    shared::Shared,
    threads::{COMPUTES, READS, Threads, deadline_in},
};

/// The readers of all apps of the process.
static RUNNING: Shared<(), Readers> = Shared::new();

/// The line of the readers that were started last.
static LINE: Mutex<Option<Sender<Work>>> = Mutex::new(None);

pub(super) type Work = Box<dyn FnOnce() + Send>;

/// A few threads that block on files instead of the game's, and one that gives freed memory back.
pub(crate) struct Readers {
    handle: ReaderHandle,
    stop: Option<Sender<Infallible>>,
    threads: Threads,
    shutdown_timeout: Duration,
}

/// Sends work to the readers. Clones may go anywhere; they do not keep the threads alive.
#[derive(Clone)]
pub(crate) struct ReaderHandle {
    reads: Sender<Work>,
    resumed: Sender<Work>,
    clean_ups: Sender<Work>,
}

impl ReaderHandle {
    /// Runs `work` on a reader, in the order of the calls.
    pub(crate) fn submit(&self, work: impl FnOnce() + Send + 'static) {
        let _ = self.reads.send(Box::new(work));
    }

    /// Whether work stands in line.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.reads.is_empty() || !self.resumed.is_empty()
    }

    /// Goes on with work that has begun and had to wait, before any that has not.
    #[cfg_attr(
        not(any(feature = "cuda", test)),
        expect(dead_code, reason = "only what goes to a card waits for buffers")
    )]
    pub(super) fn resume(&self, work: Work) {
        let _ = self.resumed.send(work);
    }

    /// Makes a handle whose resumed work the test does itself.
    #[cfg(test)]
    pub(super) fn by_hand() -> (Self, Receiver<Work>) {
        let (resumed, received) = unbounded();
        let handle = Self {
            reads: unbounded().0,
            resumed,
            clean_ups: unbounded().0,
        };
        (handle, received)
    }

    /// Runs `work` on a thread of its own, which no slow disk holds.
    pub(crate) fn clean_up(&self, work: impl FnOnce() + Send + 'static) {
        let _ = self.clean_ups.send(Box::new(work));
    }

    /// Runs `work` on a reader and returns what it returns, or what it panicked with.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        phase: &'static str,
        work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        let (tell, told) = async_channel::bounded(1);
        self.submit(move || drop(tell.try_send(caught(phase, work))));
        told.recv().await.unwrap_or(Err(LoadError::Interrupted))
    }
}

/// Drops what may be large, or may take its time, on a reader, while there are some.
pub(crate) fn drop_apart<T: Send + 'static>(value: T) {
    let line = LINE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Not under the lock: what is dropped here may come here itself.
    match line {
        Some(line) => drop(line.send(Box::new(move || drop(value)))),
        None => drop(value),
    }
}

impl Readers {
    pub(crate) fn shared(shutdown_timeout: Duration) -> Result<Arc<Self>, LoadError> {
        RUNNING.get((), |_| true, drop, || Self::start(shutdown_timeout))
    }

    pub(super) fn start(shutdown_timeout: Duration) -> Result<Self, LoadError> {
        let (reads, read_queue) = unbounded();
        let (resumed, resumed_queue) = unbounded();
        let (clean_ups, clean_up_queue) = unbounded();
        let (stop, stopped) = bounded(0);
        let mut threads = Threads::new();
        let read_queues = [resumed_queue, read_queue];
        let reader = |i| (format!("candle-read-{i}"), READS, read_queues.clone());
        // Idle shows when it is done: not below those that compute.
        let cleaner = (
            "candle-clean".to_owned(),
            COMPUTES,
            [never(), clean_up_queue],
        );
        for (name, priority, queues) in (0..count()).map(reader).chain([cleaner]) {
            let stopped = stopped.clone();
            threads
                .spawn(name, priority, move || run_all(&queues, &stopped))
                .map_err(|source| LoadError::Threads { source })?;
        }
        *LINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(reads.clone());
        Ok(Self {
            handle: ReaderHandle {
                reads,
                resumed,
                clean_ups,
            },
            stop: Some(stop),
            threads,
            shutdown_timeout,
        })
    }

    pub(crate) fn handle(&self) -> ReaderHandle {
        self.handle.clone()
    }

    /// Asks the threads to end; work that has not begun is dropped.
    pub(crate) fn stop(&mut self) {
        self.leave_line();
        self.stop = None;
    }

    /// A thread that is left behind would keep what comes later.
    fn leave_line(&self) {
        let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        let own = line.take_if(|line| line.same_channel(&self.handle.reads));
        drop(line);
        drop(own);
    }

    /// Waits for the end, at most until the deadline.
    pub(crate) fn join(&mut self, deadline: Instant) {
        for name in self.threads.join(deadline) {
            warn!("the thread {name} is held by a read that does not end, and is left behind");
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
        self.join(deadline_in(self.shutdown_timeout));
    }
}

/// How many read one load: as many as hide the latency of a disk, with one more than two cores, which waits while the
/// others copy.
pub(super) fn count_of_one_load() -> usize {
    available_parallelism().map_or(3, |cores| cores.get().clamp(3, 4))
}

/// One more: a load whose files do not answer does not hold the others.
pub(super) fn count() -> usize {
    count_of_one_load() + 1
}

/// Runs the work of two queues, the first one's first.
fn run_all(queues: &[Receiver<Work>; 2], stopped: &Receiver<Infallible>) {
    let [first, second] = queues;
    loop {
        let work = select_biased! {
            recv(stopped) -> _ => break,
            recv(first) -> work => work,
            recv(second) -> work => work,
        };
        match work {
            Ok(work) => guarded("work of a reader", work),
            Err(_) => break,
        }
        if queues.iter().all(Receiver::is_empty) {
            // Headers of files, and pages beside tensors.
            clear_idle_heap();
        }
    }
    for work in queues.iter().flat_map(Receiver::try_iter) {
        drop_guarded("work of a reader", work);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn work_returns_its_result_its_error_or_its_panic() {
        let readers = Readers::start(Duration::from_secs(10)).expect("threads");
        let handle = readers.handle();
        assert_eq!(block_on(handle.run("plan", || Ok(7))).expect("a number"), 7);
        let error = block_on(handle.run::<()>("plan", || Err(LoadError::Unsupported)));
        assert!(matches!(error, Err(LoadError::Unsupported)));
        let panic = block_on(handle.run::<()>("plan", || panic!("on purpose")));
        assert!(
            matches!(panic, Err(LoadError::Panicked { phase: "plan", message }) if message == "on purpose")
        );
    }

    #[test]
    fn what_has_begun_goes_on_before_what_has_not() {
        let readers = Readers::start(Duration::from_secs(10)).expect("threads");
        let handle = readers.handle();
        let (release, held) = unbounded::<()>();
        let (at_work, working) = unbounded();
        for _ in 0..count() {
            let (at_work, held) = (at_work.clone(), held.clone());
            handle.submit(move || {
                let _ = at_work.send(());
                let _ = held.recv();
            });
        }
        working.iter().take(count()).for_each(drop);
        let (say, said) = unbounded();
        let new = say.clone();
        handle.submit(move || _ = new.send("new"));
        handle.resume(Box::new(move || _ = say.send("begun")));
        release.send(()).expect("one is released");
        assert_eq!(said.iter().collect::<Vec<_>>(), ["begun", "new"]);
    }

    #[test]
    fn what_is_dropped_apart_may_drop_more_apart() {
        struct Nested(Option<Box<Nested>>, Sender<()>);
        impl Drop for Nested {
            fn drop(&mut self) {
                if let Some(inner) = self.0.take() {
                    drop_apart(inner);
                }
                let _ = self.1.send(());
            }
        }
        let (dropped, drops) = unbounded();
        let nested = || {
            Nested(
                Some(Box::new(Nested(None, dropped.clone()))),
                dropped.clone(),
            )
        };
        let readers = Readers::start(Duration::from_secs(10)).expect("threads");
        drop_apart(nested());
        assert_eq!(drops.iter().take(2).count(), 2);
        drop(readers);
        drop_apart(nested());
        assert_eq!(drops.iter().take(2).count(), 2, "with readers or without");
    }

    #[test]
    fn what_is_dropped_apart_does_not_wait_for_a_thread_that_was_left_behind() {
        struct Tells(Sender<()>);
        impl Drop for Tells {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let readers = Readers::start(Duration::from_millis(1)).expect("threads");
        let (release, held) = unbounded::<()>();
        let (at_work, working) = unbounded();
        readers.handle().submit(move || {
            let _ = at_work.send(());
            let _ = held.recv();
        });
        working.recv().expect("a reader is held");
        drop(readers);
        let (dropped, drops) = unbounded();
        drop_apart(Tells(dropped));
        let soon = deadline_in(Duration::from_secs(10));
        assert_eq!(drops.recv_deadline(soon), Ok(()));
        drop(release);
    }

    #[test]
    fn readers_that_ended_answer_with_an_error_and_never_hang() {
        let mut readers = Readers::start(Duration::from_secs(10)).expect("threads");
        let handle = readers.handle();
        readers.stop();
        readers.join(deadline_in(Duration::from_secs(10)));
        drop(readers);
        assert!(block_on(handle.run("plan", || Ok(()))).is_err());
    }
}
