//! [`Pinned`]: a buffer that a card copies from by itself, while the device thread and the readers go on.

use std::{ptr::NonNull, sync::Arc};

use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, PinnedHostSlice};

use crate::device::DeviceHandle;

/// Memory that stays in its place. It is given back on the device thread, wherever this is dropped, as long as that
/// runs.
pub(super) struct Pinned {
    start: NonNull<u8>,
    length: usize,
    memory: Option<PinnedHostSlice<u8>>,
    home: DeviceHandle,
}

#[expect(unsafe_code, reason = "a pointer into memory that is owned beside it")]
// SAFETY: the pointer is into `memory`, which this owns and which may be sent itself; nobody else has it.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Takes memory, as zeros. On the device thread.
    pub(super) fn new(
        context: &Arc<CudaContext>,
        length: usize,
        home: &DeviceHandle,
    ) -> Result<Self, DriverError> {
        #[expect(unsafe_code, reason = "cudarc leaves pinned memory as it is")]
        // SAFETY: nothing is read of it before it is filled, below.
        let mut memory = unsafe { context.alloc_pinned_with_flags::<u8>(length, 0) }?;
        memory.as_mut_slice()?.fill(0);
        let start = NonNull::new(memory.as_mut_ptr()?).expect("pinned memory has an address");
        Ok(Self {
            start,
            length,
            memory: Some(memory),
            home: home.clone(),
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        #[expect(
            unsafe_code,
            reason = "cudarc's own way asks the driver, on any thread"
        )]
        // SAFETY: `memory` has so many initialized bytes there until it is dropped, and nobody writes to them while
        // this is borrowed: a card only reads them.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.length)
        }
    }

    /// To be filled by whoever has borrowed it.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        #[expect(
            unsafe_code,
            reason = "cudarc's own way asks the driver, on any thread"
        )]
        // SAFETY: as in `bytes`, and nobody else has this. No card reads them either: the device thread keeps it while a
        // copy from it may be under way, and changes nothing.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length)
        }
    }
}

impl Drop for Pinned {
    /// Where the device thread has ended, nothing copies any more, and the memory goes here.
    fn drop(&mut self) {
        let memory = self.memory.take();
        self.home.run(move |_| drop(memory));
    }
}
