//! [`Gate`]: holds workers where a test wants them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_channel::{Receiver, Sender, unbounded};

use crate::{LoadError, ModelFiles};

/// Stops who comes, until the test opens it or lets some pass. Clones are the same gate.
///
/// ```
/// use std::thread;
///
/// use bevy_candle::test_kit::{Gate, wait_until};
///
/// let gate = Gate::closed();
/// let worker = gate.clone();
/// let worker = thread::spawn(move || (0..3).for_each(|_| worker.pass_blocking()));
/// gate.let_pass(2);
/// wait_until("the third pass", || (gate.passed(), gate.waiting()) == (2, 1));
/// gate.open();
/// worker.join().expect("nothing stops it any more");
/// ```
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Sender<()>,
    passes: Receiver<()>,
    waiting: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
}

impl Gate {
    /// Makes a closed gate.
    pub fn closed() -> Self {
        let (permits, passes) = unbounded();
        Self {
            permits,
            passes,
            waiting: Arc::default(),
            passed: Arc::default(),
        }
    }

    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.permits.close();
    }

    /// Lets `count` more pass.
    pub fn let_pass(&self, count: usize) {
        for _ in 0..count {
            let _ = self.permits.try_send(());
        }
    }

    /// Returns how many stand at the gate.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Returns how many have passed.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Passes, on a thread that may block.
    pub fn pass_blocking(&self) {
        futures_lite::future::block_on(self.pass());
    }

    /// Passes, in a future.
    pub async fn pass(&self) {
        let arrived = Arrived::new(&self.waiting);
        let _ = self.passes.recv().await;
        drop(arrived);
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts one more as long as it lives: a future at the gate may be dropped there.
struct Arrived<'a>(&'a AtomicUsize);

impl<'a> Arrived<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Any model's files, with a gate before each read.
///
/// ```
/// use std::sync::Arc;
///
/// use bevy_candle::{MemoryFiles, ModelFiles, test_kit::{Gate, GatedFiles}};
///
/// let gate = Gate::closed();
/// let files = MemoryFiles::new([("a", vec![1])]);
/// let gated = GatedFiles::new(Arc::new(files), &gate);
/// gate.let_pass(1);
/// let mut buf = [0];
/// gated.read_at("a", 0, &mut buf).unwrap();
/// assert_eq!(buf, [1]);
/// ```
pub struct GatedFiles {
    files: Arc<dyn ModelFiles>,
    gate: Gate,
}

impl GatedFiles {
    /// Puts a gate before the reads of `files`.
    pub fn new(files: Arc<dyn ModelFiles>, gate: &Gate) -> Self {
        Self {
            files,
            gate: gate.clone(),
        }
    }
}

impl ModelFiles for GatedFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        self.gate.pass_blocking();
        self.files.read_at(name, offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_gate_lets_as_many_pass_as_it_is_told() {
        let gate = Gate::closed();
        gate.let_pass(2);
        gate.pass_blocking();
        gate.pass_blocking();
        assert!(block_on(poll_once(gate.pass())).is_none());
        assert_eq!(
            gate.waiting(),
            0,
            "who is dropped at the gate waits no more"
        );
        assert_eq!(gate.passed(), 2);
        gate.open();
        gate.pass_blocking();
    }
}
