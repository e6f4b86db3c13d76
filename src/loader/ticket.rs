//! [`Ticket`]: travels with every buffer of a load; its end is the proof that the memory is back.

use std::{
    collections::LinkedList,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bevy::platform::time::Instant;
use candle_core::Device;

use super::readers::ReaderHandle;
use crate::{
    LoadError, ReleaseReport,
    device::DeviceHandle,
    frame_guard::Rest,
    lifeline::Watch,
    memory::{Account, Claim, Footprint, Snapshot},
    state::Ended,
};

mod ending;

use ending::{Ending, clear_heap};

/// A load or a model has ended, and its memory is back.
pub(crate) struct Gone {
    pub(crate) generation: u64,
    /// Why it ended by itself.
    pub(crate) error: Option<LoadError>,
    /// Boxed: events lie in large blocks of their channel, which the main thread frees.
    pub(crate) report: Box<ReleaseReport>,
}

impl Gone {
    /// The end of a load that never got as far as holding memory.
    pub(crate) fn without_memory(generation: u64, error: LoadError) -> Self {
        Self {
            generation,
            error: Some(error),
            report: Box::default(),
        }
    }

    pub(crate) fn ended(&self) -> Ended {
        if self.error.is_some() {
            Ended::Failed
        } else {
            Ended::Released
        }
    }
}

/// Held by everything that holds memory of one load, as its *last* field: fields drop in order.
pub(crate) struct Ticket {
    watch: Watch,
    error: OnceLock<LoadError>,
    claim: OnceLock<Claim>,
    before: OnceLock<(Instant, Snapshot)>,
    /// A list: a vector would grow on one reader's heap, just where another's thread puts its tensors.
    footprints: Mutex<LinkedList<Footprint>>,
    /// The cleaner has been asked to give the readers' heaps back.
    leaves_heap: AtomicBool,
    account: Arc<Account>,
    device: DeviceHandle,
    readers: ReaderHandle,
    rest: Rest,
    generation: u64,
    tell: Option<Box<dyn FnOnce(Gone) + Send + Sync>>,
}

impl Ticket {
    pub(crate) fn new(
        generation: u64,
        watch: Watch,
        account: Arc<Account>,
        device: DeviceHandle,
        readers: ReaderHandle,
        rest: Rest,
        tell: impl FnOnce(Gone) + Send + Sync + 'static,
    ) -> Self {
        Self {
            watch,
            error: OnceLock::new(),
            claim: OnceLock::new(),
            before: OnceLock::new(),
            footprints: Mutex::default(),
            leaves_heap: AtomicBool::new(false),
            account,
            device,
            readers,
            rest,
            generation,
            tell: Some(Box::new(tell)),
        }
    }

    /// Whether the load still goes on.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.watch.is_cut() && self.error.get().is_none()
    }

    /// Whether the load still goes on, after a rest where the game works: asked before each chunk.
    pub(crate) fn is_wanted_after_rest(&self) -> bool {
        self.rest.wait_while(|| self.is_wanted());
        self.is_wanted()
    }

    /// When others of the app rest.
    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Ends the load with its first error.
    pub(crate) fn fail(&self, error: LoadError) {
        let _ = self.error.set(error);
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn device(&self) -> &DeviceHandle {
        &self.device
    }

    /// Bytes of the budget that the load has.
    pub(crate) fn claimed(&self) -> u64 {
        self.claim.get().map(Claim::bytes).unwrap_or_default()
    }

    /// Keeps the load's part of the budget until the memory is back.
    pub(crate) fn keep(&self, claim: Claim) {
        self.account.set_bytes(claim.bytes());
        let _ = self.claim.set(claim);
    }

    /// Keeps where tensors lie until their memory is back.
    pub(crate) fn keep_to_the_end(&self, footprint: Footprint) {
        let footprints = self.footprints.lock();
        let mut footprints = footprints.unwrap_or_else(PoisonError::into_inner);
        footprints.push_back(footprint);
    }

    /// Gives back where tensors lay that have gone to a device with memory of its own.
    pub(crate) fn leave_heap(&self) {
        let footprints = self.footprints.lock();
        let footprints = std::mem::take(&mut *footprints.unwrap_or_else(PoisonError::into_inner));
        if !footprints.is_empty() {
            self.leaves_heap.store(true, Ordering::Relaxed);
            let rest = self.rest.clone();
            let claimed = self.claimed();
            self.readers
                .clean_up(move || clear_heap(footprints, claimed, &rest));
        }
    }

    /// Remembers what was in use just before the memory is let go.
    pub(crate) fn before_release(&self, device: &Device) {
        self.before
            .get_or_init(|| (Instant::now(), Snapshot::take(device)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let ended_by_itself = !self.watch.is_cut();
        let lost = || self.device.unusable().unwrap_or(LoadError::DeviceLost);
        let error = self.error.take();
        let error = error.or_else(|| ended_by_itself.then(lost));
        let footprints = self.footprints.get_mut();
        let footprints = std::mem::take(footprints.unwrap_or_else(PoisonError::into_inner));
        let ending = Ending {
            generation: self.generation,
            claim: self.claim.take(),
            before: self.before.take(),
            was_in_heap: !footprints.is_empty() || *self.leaves_heap.get_mut(),
            footprints,
            account: self.account.clone(),
            device: self.device.clone(),
            readers: self.readers.clone(),
            rest: self.rest.clone(),
            error,
            tell: self.tell.take(),
        };
        self.device.run(move |context| ending.release(context));
    }
}
