//! [`StepGate`]: where a job waits between two steps while the guard pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bevy::{platform::time::Instant, prelude::*};
use event_listener::{Event, listener};
use futures_lite::future;

use super::clock::{nanos, time};
use crate::device::sleep_until;

/// From the begin of a step to the begin of the next, at most: at least one step in 250 ms, whatever happens.
const AT_LATEST: Duration = Duration::from_millis(235);

/// One for each app; all its jobs pass it before each step.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct StepGate(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    closed: AtomicBool,
    opened: Event,
    /// Steps that run.
    running: AtomicU32,
    /// Steps that have begun.
    begun: AtomicU64,
    /// When the last of them began, on the guard's clock.
    last: AtomicU64,
}

impl StepGate {
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    pub(crate) fn open(&self) {
        if self.0.closed.swap(false, Ordering::AcqRel) {
            self.0.opened.notify(usize::MAX);
        }
    }

    fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// How many steps have begun.
    pub(super) fn steps(&self) -> u64 {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Whether a step runs.
    pub(super) fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Acquire) > 0
    }

    /// Waits on the device thread until the gate opens, or until the last step is too long ago.
    pub(crate) async fn pass(&self, last: Instant) {
        let due = last + AT_LATEST;
        while self.is_closed() && Instant::now() < due {
            listener!(self.0.opened => opened);
            if self.is_closed() {
                future::or(opened, sleep_until(due)).await;
            }
        }
    }

    /// Counts a step, until the result is dropped.
    pub(crate) fn begin(&self) -> Running {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        self.0.running.fetch_add(1, Ordering::AcqRel);
        let since = Instant::now();
        self.0.last.store(nanos(since), Ordering::Release);
        Running {
            gate: self.clone(),
            since,
        }
    }

    /// Waits as before a step: a job's first one comes after the last one of the job before it.
    pub(crate) async fn pass_first(&self) {
        if self.is_closed() {
            let last = time(self.0.last.load(Ordering::Acquire));
            self.pass(last).await;
        }
    }
}

/// A step that runs.
pub(crate) struct Running {
    gate: StepGate,
    since: Instant,
}

impl Running {
    /// When it began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gate.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::block_on;

    #[test]
    fn an_open_gate_holds_nobody() {
        let gate = StepGate::default();
        let passed = future::poll_once(gate.pass(Instant::now()));
        assert!(block_on(passed).is_some());
    }

    #[test]
    fn a_closed_gate_opens_for_those_who_wait() {
        let gate = StepGate::default();
        gate.close();
        let far = Instant::now() + Duration::from_secs(3600);
        let opener = gate.clone();
        let mut passing = Box::pin(gate.pass(far));
        assert!(block_on(future::poll_once(passing.as_mut())).is_none());
        let opens = std::thread::spawn(move || opener.open());
        block_on(passing);
        opens.join().expect("it ends");
    }

    #[test]
    fn a_closed_gate_lets_a_step_through_in_a_quarter_of_a_second() {
        let gate = StepGate::default();
        gate.close();
        let last = Instant::now();
        block_on(gate.pass(last));
        assert!(last.elapsed() >= AT_LATEST);
        assert!(gate.is_closed());
    }

    #[test]
    fn steps_are_counted_while_they_run() {
        let gate = StepGate::default();
        let step = gate.begin();
        assert_eq!((gate.steps(), gate.is_running()), (1, true));
        drop(step);
        assert_eq!((gate.steps(), gate.is_running()), (1, false));
    }
}
