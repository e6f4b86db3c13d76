//! [`Shares`]: the batches of one load, of which a reader takes the next when it is done with one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    vec,
};

use super::{
    batch::Batch,
    readers::{self, ReaderHandle},
    reading::{Share, read_batch},
};

/// What is left to read of one load.
///
/// A load has as many readers as hide the latency of a disk, and all its batches are not in line at once: another load,
/// however small, would stand behind them. There is one reader more, for whoever comes while a load has all others.
///
/// What goes to a card counts as read when it waits for a buffer: it then goes on by itself, before what has not begun.
pub(super) struct Shares<C> {
    left: Mutex<vec::IntoIter<(Share<C>, Batch)>>,
    readers: ReaderHandle,
}

impl<C: Send + 'static> Shares<C> {
    pub(super) fn new(shares: Vec<(Share<C>, Batch)>, readers: ReaderHandle) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(shares.into_iter()),
            readers,
        })
    }

    /// Has the readers begin.
    pub(super) fn begin(self: &Arc<Self>) {
        for _ in 0..readers::count_of_one_load() {
            self.submit();
        }
    }

    fn submit(self: &Arc<Self>) {
        let shares = self.clone();
        self.readers.submit(move || shares.read());
    }

    /// Reads batch after batch, and stands in line again where others do.
    fn read(self: Arc<Self>) {
        while let Some((share, batch)) = self.next() {
            read_batch(share, batch);
            if self.readers.is_waited_for() {
                return self.submit();
            }
        }
    }

    fn next(&self) -> Option<(Share<C>, Batch)> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.next()
    }
}
