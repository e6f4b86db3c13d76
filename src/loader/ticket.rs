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
use tracing::debug;

use crate::{
    LoadError, ReleaseReport,
    device::{DeviceContext, DeviceHandle},
    frame_guard::Rest,
    lifeline::Watch,
    memory::{self, Account, Claim, Footprint, Snapshot},
    state::Ended,
};

use super::readers::ReaderHandle;

/// Bytes of a model that may stay with the C library, or a hundredth of them.
const LEFT: u64 = 1 << 20;

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

/// Gives back what tensors of so many bytes lay on, while the game waits for its next frame.
fn clear_heap(mut footprints: LinkedList<Footprint>, bytes: u64, rest: &Rest) {
    let pause = || rest.wait_while(|| true);
    pause();
    // All places at once: in a pause another load could take what is free.
    let mut left = memory::take_places(&mut footprints);
    for footprint in footprints {
        left += footprint.give_back(pause);
    }
    // What is left costs the game its own free blocks, and holds it up.
    if left > LEFT.max(bytes / 100) {
        debug!("{left} bytes are still with the C library: trimming all of it");
        pause();
        memory::trim_heap();
    }
}

/// What is left to do when all buffers are dropped. Tells in any case, measured or not.
struct Ending {
    generation: u64,
    claim: Option<Claim>,
    before: Option<(Instant, Snapshot)>,
    footprints: LinkedList<Footprint>,
    /// Whether readers' heaps have to be given back, or are just being.
    was_in_heap: bool,
    account: Arc<Account>,
    device: DeviceHandle,
    readers: ReaderHandle,
    rest: Rest,
    error: Option<LoadError>,
    tell: Option<Box<dyn FnOnce(Gone) + Send + Sync>>,
}

impl Ending {
    /// An accelerator is released on its own thread. The heap is given back on another: that takes long where a
    /// model had many small tensors, and the jobs of others go on.
    fn release(self, context: &DeviceContext) {
        match context.lend() {
            Ok(lent) if lent.device.is_cpu() => self.release_on_cpu(),
            // Tensors were on their way there without pinned memory.
            Ok(_) if self.was_in_heap => self.clear_heap_first(),
            // What is lost cannot be measured.
            Ok(lent) => self.measure(lent.settle().then_some(&lent.device)),
            Err(_) => self.measure(None),
        }
    }

    fn release_on_cpu(mut self) {
        // What jobs have used, on all threads of the device: first, since those of others want it.
        let used = rayon::broadcast(|_| Footprint::of_this_heap());
        for footprint in used.into_iter().flatten() {
            self.footprints.push_front(footprint);
        }
        self.readers.clone().clean_up(move || {
            self.clear_heap();
            self.measure(Some(&Device::Cpu));
        });
    }

    /// Comes back to the device when the heap is clear.
    fn clear_heap_first(mut self) {
        self.was_in_heap = false;
        let device = self.device.clone();
        self.readers.clone().clean_up(move || {
            self.clear_heap();
            device.run(move |context| self.release(context));
        });
    }

    fn clear_heap(&mut self) {
        let footprints = std::mem::take(&mut self.footprints);
        clear_heap(footprints, self.claimed(), &self.rest);
    }

    fn measure(mut self, device: Option<&Device>) {
        let claimed = self.claimed();
        let (since, before) = self.before.unzip();
        let report = device.map(|device| memory::report(device, claimed, before, since));
        self.tell(report);
    }

    fn claimed(&self) -> u64 {
        self.claim.as_ref().map(Claim::bytes).unwrap_or_default()
    }

    fn tell(&mut self, report: Option<ReleaseReport>) {
        let Some(tell) = self.tell.take() else { return };
        let report = report.unwrap_or(ReleaseReport {
            claimed: self.claimed(),
            ..Default::default()
        });
        let footprints = std::mem::take(&mut self.footprints);
        if !footprints.is_empty() {
            // Whoever drops this may not be held.
            let (claimed, rest) = (self.claimed(), self.rest.clone());
            self.readers
                .clean_up(move || clear_heap(footprints, claimed, &rest));
        }
        self.claim = None;
        self.account.close();
        // A device that was lost meanwhile has not released anything, whoever let go of it.
        let error = self.error.take().or_else(|| self.device.unusable());
        tell(Gone {
            generation: self.generation,
            error,
            report: report.into(),
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(None);
    }
}
