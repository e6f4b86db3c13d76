//! Pinned buffers on their way between a reader, who fills them, and the device thread, which owns them.
//!
//! Only from pinned memory does a card copy by itself, while the device thread and the readers go on. Two buffers for each
//! reader are enough: it reads into one while the other is copied.

use std::{ops::Range, ptr::NonNull, sync::Arc};

use async_channel::{Receiver, Sender};
use candle_core::{
    DType,
    cuda_backend::cudarc::driver::{CudaContext, DriverError, PinnedHostSlice},
};

use super::{
    batch::{Batch, CHUNK, Reading, chunks},
    cast::{HostTensor, Scratch, convert_bytes, widen_bytes},
    owner::{Arrived, ToOwner},
    packing::{Cut, pack},
    plan::TensorPlan,
    ticket::Ticket,
};
use crate::{LoadError, device::DeviceHandle, panics::caught};

/// Asks the owner for buffers, before the first read.
pub(super) struct Stage {
    /// The bytes that the weights will have on the card.
    pub(super) bytes: u64,
    /// The format that the weights run in.
    pub(super) dtype: DType,
    pub(super) home: DeviceHandle,
    /// Hears [`None`] where there is no pinned memory to be had: then tensors go one by one.
    pub(super) tell: Sender<Option<Lender>>,
}

/// Where readers borrow buffers. Each comes back when its copy is done.
pub(super) struct Lender {
    pub(super) buffers: Receiver<Pinned>,
    pub(super) length: usize,
}

/// Memory that stays in its place. It is given back on the device thread, wherever this is dropped.
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

    fn bytes_mut(&mut self) -> &mut [u8] {
        #[expect(
            unsafe_code,
            reason = "cudarc's own way asks the driver, on any thread"
        )]
        // SAFETY: as in `bytes`. Whoever fills it has borrowed it, and it is lent only when no copy from it is under way.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let memory = self.memory.take();
        self.home.run(move |_| drop(memory));
    }
}

/// A part of a tensor, and where it lies in its buffer.
pub(super) struct Piece {
    pub(super) name: Arc<str>,
    pub(super) plan: Arc<TensorPlan>,
    pub(super) elements: Range<usize>,
    pub(super) at: usize,
}

/// A full buffer on its way to the device thread. The ticket is the last field: it is dropped last.
pub(super) struct Chunk {
    pub(super) pieces: Vec<Piece>,
    pub(super) buffer: Pinned,
    pub(super) _ticket: Arc<Ticket>,
}

impl<C> Reading<C> {
    /// Reads a batch into buffers, and hands each to the device thread. Returns false for a load that nobody wants any
    /// more.
    pub(super) fn read_staged(
        &self,
        batch: Batch,
        ticket: &Arc<Ticket>,
        lender: &Lender,
    ) -> Result<bool, LoadError> {
        let tensors: Vec<_> = batch
            .into_iter()
            .map(|(name, plan)| (name, Arc::new(plan)))
            .collect();
        self.send_empty(&tensors, ticket);
        let sizes = tensors.iter().map(|(_, plan)| {
            let size = plan.run_dtype(self.dtype).size_in_bytes();
            (plan.elements(), size)
        });
        for cuts in pack(sizes, lender.length) {
            // An owner that has ended lends no more.
            let Ok(mut buffer) = lender.buffers.recv_blocking() else {
                return Ok(false);
            };
            if !caught("read", || {
                self.fill_buffer(&tensors, &cuts, ticket, &mut buffer)
            })? {
                return Ok(false);
            }
            let piece = |cut: Cut| Piece {
                name: tensors[cut.tensor].0.clone(),
                plan: tensors[cut.tensor].1.clone(),
                elements: cut.elements,
                at: cut.at,
            };
            let chunk = Chunk {
                pieces: cuts.into_iter().map(piece).collect(),
                buffer,
                _ticket: ticket.clone(),
            };
            let _ = self.owner.try_send(ToOwner::Chunk(chunk));
        }
        Ok(true)
    }

    /// Tensors without elements lie in no buffer.
    fn send_empty(&self, tensors: &[(Arc<str>, Arc<TensorPlan>)], ticket: &Arc<Ticket>) {
        for (name, plan) in tensors.iter().filter(|(_, plan)| plan.elements() == 0) {
            let Some(values) = HostTensor::reserve(plan.run_dtype(self.dtype), 0) else {
                continue;
            };
            let _ = self.owner.try_send(ToOwner::Tensor(Arrived {
                name: name.clone(),
                plan: TensorPlan::clone(plan),
                values,
                _ticket: ticket.clone(),
            }));
        }
    }

    fn fill_buffer(
        &self,
        tensors: &[(Arc<str>, Arc<TensorPlan>)],
        cuts: &[Cut],
        ticket: &Ticket,
        buffer: &mut Pinned,
    ) -> Result<bool, LoadError> {
        let mut scratch = Scratch::new();
        for cut in cuts {
            let plan = &tensors[cut.tensor].1;
            let size = plan.run_dtype(self.dtype).size_in_bytes();
            let into = &mut buffer.bytes_mut()[cut.at..][..cut.elements.len() * size];
            if !self.fill_cut(plan, cut.elements.start, ticket, into, &mut scratch)? {
                return Ok(false);
            }
        }
        Ok(ticket.is_wanted())
    }

    /// Reads a part of a tensor, from the element `first` on.
    fn fill_cut(
        &self,
        plan: &TensorPlan,
        first: usize,
        ticket: &Ticket,
        into: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<bool, LoadError> {
        let (stored, wanted) = (plan.stored, plan.run_dtype(self.dtype));
        let (from, to) = (stored.size_in_bytes(), wanted.size_in_bytes());
        let step = if to < from { Scratch::BYTES } else { CHUNK } / from;
        for elements in chunks(into.len() / to, step) {
            if !ticket.is_wanted() {
                return Ok(false);
            }
            let offset = plan.offset + ((first + elements.start) * from) as u64;
            let bytes = elements.len() * from;
            let into = &mut into[elements.start * to..elements.end * to];
            if to < from {
                let chunk = scratch.bytes_mut(bytes);
                self.files.read_at(&plan.file, offset, chunk)?;
                convert_bytes(into, wanted, stored, chunk);
            } else {
                let tail = into.len() - bytes;
                self.files.read_at(&plan.file, offset, &mut into[tail..])?;
                if wanted != stored {
                    widen_bytes(into, wanted, stored, scratch);
                }
            }
            self.count(bytes);
        }
        Ok(true)
    }
}
