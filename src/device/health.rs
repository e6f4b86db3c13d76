//! Whether a device still works, and what an error on it comes to.

#[cfg(any(feature = "cuda", feature = "test_kit"))]
use std::fmt;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, OnceLock, Weak},
};

use candle_core::Device;
#[cfg(any(feature = "cuda", feature = "test_kit"))]
use tracing::error;
use tracing::warn;

#[cfg(feature = "cuda")]
use super::fault::Fault;
use super::settle::settle;
#[cfg(feature = "cuda")]
use crate::memory;
use crate::{DeviceChoice, ErrorChain, InferError, LoadError, memory::Ledger};

/// Why a device cannot be used any more; empty while it works. Written on its thread, read on any.
pub(crate) type Broken = Arc<OnceLock<Arc<str>>>;

/// Whether a device still works. Lives on its thread.
pub(crate) struct Health {
    choice: DeviceChoice,
    #[cfg_attr(
        not(any(feature = "cuda", feature = "test_kit")),
        expect(dead_code, reason = "only a CUDA driver gives a device up")
    )]
    broken: Broken,
    /// The device is gone: the thread ends, and takes what it holds along.
    lost: Cell<bool>,
    /// The books of the apps that use the device.
    shown_in: RefCell<Vec<Weak<Ledger>>>,
}

impl Health {
    pub(super) fn new(choice: DeviceChoice, broken: Broken) -> Self {
        Self {
            choice,
            broken,
            lost: Cell::new(false),
            shown_in: RefCell::default(),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Has the books of an app say so where the device is given up.
    pub(super) fn show_in(&self, ledger: &Arc<Ledger>) {
        let mut shown_in = self.shown_in.borrow_mut();
        shown_in.retain(|ledger| ledger.strong_count() > 0);
        shown_in.push(Arc::downgrade(ledger));
    }

    /// Ends the thread. The next load starts the device anew.
    #[cfg(feature = "test_kit")]
    pub(super) fn lose(&self) {
        self.lost.set(true);
    }

    /// Ends the thread for good: a device in such a state works again in a new process only.
    #[cfg(any(feature = "cuda", feature = "test_kit"))]
    pub(super) fn give_up(&self, reason: impl fmt::Display) {
        let reason: Arc<str> = reason.to_string().into();
        if self.broken.set(reason.clone()).is_err() {
            return;
        }
        error!(
            "the device {} cannot be used any more: {reason}",
            self.choice
        );
        for ledger in self.shown_in.take().iter().filter_map(Weak::upgrade) {
            ledger.give_up(&reason);
        }
        self.lost.set(true);
    }
}

/// What a device thread lends to a model: the device, and whether it still works.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) device: Device,
    health: Rc<Health>,
}

impl Lent {
    pub(super) fn new(device: Device, health: Rc<Health>) -> Self {
        Self { device, health }
    }

    /// Waits for what the device still works on, so that a drop that follows frees at once. Returns false where the device
    /// turns out to be lost, upon which it is given up.
    pub(crate) fn settle(&self) -> bool {
        if self.is_lost() {
            return false;
        }
        let Err(error) = settle(&self.device) else {
            return true;
        };
        #[cfg(feature = "cuda")]
        if self.is_loss(&error) {
            self.health.give_up(ErrorChain(&error));
            return false;
        }
        warn!("failed to wait for the device: {}", ErrorChain(&error));
        true
    }

    /// Whether the device has been given up, or its thread ends for another reason.
    pub(crate) fn is_lost(&self) -> bool {
        self.health.is_lost()
    }

    /// What the error of a load that needs so many bytes comes to.
    pub(crate) fn load_error(&self, error: LoadError, needed: u64) -> LoadError {
        match self.verdict(&error) {
            Verdict::Full(free) => LoadError::DeviceOutOfMemory { needed, free },
            Verdict::Broken(reason) => unusable(self.health.choice, &reason),
            Verdict::Works => error,
        }
    }

    /// What the error of a job that needs so many bytes comes to. A panic stays one, whatever is found on the device: the
    /// model hears of that.
    pub(crate) fn job_error(&self, error: InferError, needed: u64) -> InferError {
        match self.verdict(&error) {
            _ if matches!(error, InferError::Panicked(_)) => error,
            Verdict::Full(free) => InferError::DeviceOutOfMemory { needed, free },
            Verdict::Broken(reason) => {
                InferError::Failed(Arc::new(unusable(self.health.choice, &reason)))
            }
            Verdict::Works => error,
        }
    }

    /// An error that a pipeline has put into words of its own, or that came with a drop or a panic, does not show what it
    /// is; but a device that is lost fails every call. One that goes on is not lost, whatever the error says.
    #[cfg(feature = "cuda")]
    fn verdict(&self, error: &(dyn std::error::Error + 'static)) -> Verdict {
        if !self.device.is_cuda() {
            return Verdict::Works;
        }
        let fault = Fault::behind(error);
        let waited = settle(&self.device);
        if let Some(again) = waited.err().filter(|again| self.is_loss(again)) {
            let reason = match fault {
                Fault::Sticky => ErrorChain(error).to_string(),
                Fault::OutOfMemory | Fault::Passing => ErrorChain(&again).to_string(),
            };
            self.health.give_up(&reason);
            // Where it was given up before, with the reason that all others hear.
            let first = self.health.broken.get().map(ToString::to_string);
            return Verdict::Broken(first.unwrap_or(reason));
        }
        match fault {
            Fault::OutOfMemory => Verdict::Full(memory::free_bytes(&self.device)),
            Fault::Sticky | Fault::Passing => Verdict::Works,
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unused_self, reason = "only a CUDA driver has such errors")]
    fn verdict(&self, _: &(dyn std::error::Error + 'static)) -> Verdict {
        Verdict::Works
    }

    /// Whether the error of a wait that failed each time takes the device along.
    #[cfg(feature = "cuda")]
    fn is_loss(&self, error: &candle_core::Error) -> bool {
        self.device.is_cuda() && Fault::behind(error).is_loss()
    }
}

/// Has the error told that somebody's drop left behind: the next call, whatever it is, would return it as its own. A device
/// that is lost says so again.
pub(crate) fn hear_of_others(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device
        && let Err(error) = card.cuda_stream().context().check_err()
    {
        warn!("something failed on the device before: {error}");
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// What an error says of its device.
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "only a CUDA driver has such errors")
)]
enum Verdict {
    Works,
    /// It has so many bytes left.
    Full(u64),
    Broken(String),
}

pub(crate) fn unusable(device: DeviceChoice, reason: &str) -> LoadError {
    LoadError::DeviceUnusable {
        device: format!("{device:?}"),
        reason: reason.to_owned(),
    }
}
