//! [`Signal`]: says that the next frame has work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bevy::prelude::*;

/// Raised by whoever has news for the managers: a request, a worker, a job. One for each app.
///
/// Without news a frame costs one look at it, however many kinds of models there are.
#[derive(Resource, Clone, Default)]
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
