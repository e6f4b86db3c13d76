//! Whether a device still works, and what an error on it comes to.

#[cfg(any(feature = "cuda", feature = "test_kit"))]
use std::fmt;
use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use candle_core::Device;
#[cfg(any(feature = "cuda", feature = "test_kit"))]
use tracing::error;

#[cfg(feature = "cuda")]
use super::fault::Fault;
use crate::{DeviceChoice, InferError, LoadError, memory::Account};

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
}

impl Health {
    pub(super) fn new(choice: DeviceChoice, broken: Broken) -> Self {
        Self {
            choice,
            broken,
            lost: Cell::new(false),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Ends the thread. The next load starts the device anew.
    #[cfg(feature = "test_kit")]
    pub(super) fn lose(&self) {
        self.lost.set(true);
    }

    /// Ends the thread for good: a device in such a state works again in a new process only.
    #[cfg(any(feature = "cuda", feature = "test_kit"))]
    pub(super) fn give_up(&self, reason: impl fmt::Display) {
        error!(
            "the device {} cannot be used any more: {reason}",
            self.choice
        );
        let _ = self.broken.set(reason.to_string().into());
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

    /// What the error of a load that needs so many bytes comes to.
    pub(crate) fn load_error(&self, error: LoadError, needed: u64, account: &Account) -> LoadError {
        match self.verdict(&error, account) {
            Verdict::Full(free) => LoadError::DeviceOutOfMemory { needed, free },
            Verdict::Broken(reason) => unusable(self.health.choice, &reason),
            Verdict::Works => error,
        }
    }

    /// What the error of a job that needs so many bytes comes to.
    pub(crate) fn job_error(
        &self,
        error: InferError,
        needed: u64,
        account: &Account,
    ) -> InferError {
        match self.verdict(&error, account) {
            Verdict::Full(free) => InferError::DeviceOutOfMemory { needed, free },
            Verdict::Broken(reason) => {
                InferError::Failed(Arc::new(unusable(self.health.choice, &reason)))
            }
            Verdict::Works => error,
        }
    }

    #[cfg(feature = "cuda")]
    fn verdict(&self, error: &(dyn std::error::Error + 'static), account: &Account) -> Verdict {
        let Device::Cuda(device) = &self.device else {
            return Verdict::Works;
        };
        let fault = Fault::behind(error);
        if let Some(reason) = sticky(fault, error, device) {
            self.health.give_up(&reason);
            account.device_is_unusable(&reason);
            return Verdict::Broken(reason);
        }
        match fault {
            Fault::OutOfMemory => Verdict::Full(crate::memory::free_bytes(&self.device)),
            Fault::Sticky | Fault::Passing => Verdict::Works,
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unused_self, reason = "only a CUDA driver has such errors")]
    fn verdict(&self, _: &(dyn std::error::Error + 'static), _: &Account) -> Verdict {
        Verdict::Works
    }
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

/// Why the device is lost, if it is. An error that a pipeline has put into words of its own, or that came with a drop,
/// does not show what it is; but a device that is lost fails every call. The first one after a failed drop only tells of
/// that.
#[cfg(feature = "cuda")]
fn sticky(
    fault: Fault,
    error: &(dyn std::error::Error + 'static),
    device: &candle_core::CudaDevice,
) -> Option<String> {
    if fault == Fault::Sticky {
        return Some(crate::ErrorChain(error).to_string());
    }
    let stream = device.cuda_stream();
    stream.synchronize().err()?;
    let again = stream.synchronize().err()?;
    (Fault::behind(&again) != Fault::OutOfMemory).then(|| again.to_string())
}
