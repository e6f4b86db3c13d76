//! [`Ending`]: gives back what lay behind a load's buffers, measures it, and tells.

use std::{collections::LinkedList, sync::Arc};

use bevy::platform::time::Instant;
use candle_core::Device;
use tracing::debug;

use super::Gone;
use crate::{
    LoadError, ReleaseReport,
    device::{DeviceContext, DeviceHandle},
    frame_guard::Rest,
    loader::readers::ReaderHandle,
    memory::{self, Account, Claim, Footprint, Snapshot},
};

/// Bytes of a model that may stay with the C library, or a hundredth of them.
const LEFT: u64 = 1 << 20;

/// What is left to do when all buffers are dropped. Tells in any case, measured or not.
pub(super) struct Ending {
    pub(super) generation: u64,
    pub(super) claim: Option<Claim>,
    pub(super) before: Option<(Instant, Snapshot)>,
    pub(super) footprints: LinkedList<Footprint>,
    /// Whether readers' heaps have to be given back, or are just being.
    pub(super) was_in_heap: bool,
    pub(super) account: Arc<Account>,
    pub(super) device: DeviceHandle,
    pub(super) readers: ReaderHandle,
    pub(super) rest: Rest,
    pub(super) error: Option<LoadError>,
    pub(super) tell: Option<Box<dyn FnOnce(Gone) + Send + Sync>>,
}

impl Ending {
    /// An accelerator is released on its own thread. The heap is given back on another: that takes long where a
    /// model had many small tensors, and the jobs of others go on.
    pub(super) fn release(self, context: &DeviceContext) {
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

/// Gives back what tensors of so many bytes lay on, while the game waits for its next frame.
pub(super) fn clear_heap(mut footprints: LinkedList<Footprint>, bytes: u64, rest: &Rest) {
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
