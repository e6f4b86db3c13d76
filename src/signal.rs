//! [`Signal`] and [`Alarm`]: say that the next frame has work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bevy::prelude::*;

/// Raised by whoever has news for the managers: a request, a worker, a job. One for each app.
///
/// Without news a frame costs one look at it, however many kinds of models there are.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct Signal(Arc<AtomicBool>);

impl Signal {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Takes the news: what is raised from now on counts for the next time.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// When a time-out ends that nobody signals, on the clock of `Time<Real>`.
#[derive(Resource, Default)]
pub(crate) struct Alarm(Option<Duration>);

impl Alarm {
    /// Asks for a look at that time, unless somebody needs it sooner.
    pub(crate) fn set(&mut self, due: Option<Duration>) {
        self.0 = [self.0, due].into_iter().flatten().min();
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.0.is_some_and(|due| due <= now)
    }
}
