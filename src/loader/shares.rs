//! [`Shares`]: the batches of one load, of which a reader takes the next when it is done with one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    vec,
};

#[cfg(feature = "cuda")]
use super::staging::Lift;
use super::{
    batch::Batch,
    readers::{self, ReaderHandle},
    reading::Share,
};

/// What is left to read of one load.
///
/// A load has as many readers as hide the latency of a disk, and all its batches are not in line at once: another load,
/// however small, would stand behind them. There is one reader more, for whoever comes while a load has all others.
///
/// What goes to a card may have to wait for a buffer, and its turn waits along: its reader reads for others.
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
            if !self.read_batch(share, batch) {
                return;
            }
            if self.readers.is_waited_for() {
                return self.submit();
            }
        }
    }

    /// Returns false where the batch waits for a buffer, and then [goes on](Self::go_on) with the turn, or where the lending
    /// has ended, and with it the load.
    fn read_batch(self: &Arc<Self>, share: Share<C>, batch: Batch) -> bool {
        #[cfg(feature = "cuda")]
        if let Some(lender) = share.reading.lender.clone() {
            return Lift::new(share, batch, lender, self.clone()).begin();
        }
        share.read_all(batch);
        true
    }

    /// Goes on with a turn whose batch had to wait.
    #[cfg(feature = "cuda")]
    pub(super) fn go_on(self: Arc<Self>) {
        if self.readers.is_waited_for() {
            self.submit();
        } else {
            self.read();
        }
    }

    fn next(&self) -> Option<(Share<C>, Batch)> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.next()
    }
}
