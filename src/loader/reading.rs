//! Reading weights: tensor by tensor, in chunks, straight into the memory that candle will use.

use std::{
    ops::Range,
    sync::{Arc, Weak},
};

use async_channel::Sender;
use candle_core::DType;

use super::{
    batch::{Batch, CHUNK, chunks},
    cast::Scratch,
    host_tensor::HostTensor,
    owner::{Arrived, HostNamed, ToOwner},
    plan::{TensorPlan, sum},
    progress::ProgressCell,
    ticket::Ticket,
};
#[cfg(feature = "cuda")]
use super::{lender::Lender, pinned::Pinned};
use crate::{
    LoadError,
    memory::{SMALL, Stretch, clear_this_heap},
    panics::caught,
    signal::Signal,
    source::{DirectReads, HeldFiles},
};

/// What every reader of one load needs.
pub(super) struct Reading<C> {
    pub(super) files: HeldFiles,
    pub(super) dtype: DType,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) owner: Sender<ToOwner<C>>,
    pub(super) signal: Signal,
    pub(super) huge_pages: bool,
    /// Where buffers for a card are borrowed.
    #[cfg(feature = "cuda")]
    pub(super) lender: Option<Lender<Pinned>>,
}

impl<C> Reading<C> {
    /// Hands the tensors of a batch to the device thread. Returns false for a load that nobody wants
    /// any more: that is no error, it just ends early.
    fn read(&self, batch: Batch, ticket: &Arc<Ticket>) -> Result<bool, LoadError> {
        let mut reserved = self.reserve_small(&batch)?;
        let mut stretch = self.stretch_for(&batch, ticket);
        let whole = self.reserve_others(&batch, &mut reserved, ticket);
        let blocks = reserved.iter().flatten().map(HostTensor::addresses);
        ticket.keep_to_the_end(stretch.close(blocks));
        if !whole? {
            return Ok(false);
        }
        let read = |((name, plan), values)| HostNamed { name, plan, values };
        let reserved = reserved.into_iter().flatten();
        let mut tensors: Vec<_> = batch.into_iter().zip(reserved).map(read).collect();
        for HostNamed { plan, values, .. } in &mut tensors {
            if !caught("read", || self.fill(plan, ticket, values))? {
                return Ok(false);
            }
        }
        self.send(tensors, ticket);
        Ok(true)
    }

    /// Sends tensors that were read to the device thread.
    pub(super) fn send(&self, tensors: Vec<HostNamed>, ticket: &Arc<Ticket>) {
        if tensors.is_empty() {
            return;
        }
        let arrived = Arrived {
            tensors,
            _ticket: ticket.clone(),
        };
        // Refused by an owner that has ended: the tensors are dropped here.
        let _ = self.owner.try_send(ToOwner::Tensors(arrived));
    }

    /// Takes the memory of small tensors, which are to lie in no stretch.
    fn reserve_small(&self, batch: &Batch) -> Result<Vec<Option<HostTensor>>, LoadError> {
        let reserve = |(name, tensor): &(Arc<str>, TensorPlan)| {
            let values = self.is_small(tensor).then(|| self.reserve(name, tensor));
            values.transpose()
        };
        batch.iter().map(reserve).collect()
    }

    fn stretch_for(&self, batch: &Batch, ticket: &Ticket) -> Stretch {
        let others = || batch.iter().filter(|(_, tensor)| !self.is_small(tensor));
        let bytes = sum(others().map(|(_, tensor)| tensor.run_bytes(self.dtype)));
        Stretch::take(bytes, others().count(), self.huge_pages, || {
            ticket.is_wanted_after_rest()
        })
    }

    /// Takes the memory of all others; the thread allocates nothing else meanwhile. Returns whether it was all.
    fn reserve_others(
        &self,
        batch: &Batch,
        reserved: &mut [Option<HostTensor>],
        ticket: &Ticket,
    ) -> Result<bool, LoadError> {
        for ((name, tensor), values) in batch.iter().zip(reserved) {
            if !ticket.is_wanted_after_rest() {
                return Ok(false);
            }
            if values.is_none() {
                *values = Some(self.reserve(name, tensor)?);
            }
        }
        Ok(true)
    }

    fn is_small(&self, tensor: &TensorPlan) -> bool {
        tensor.run_bytes(self.dtype) < SMALL as u64
    }

    fn reserve(&self, name: &str, tensor: &TensorPlan) -> Result<HostTensor, LoadError> {
        let refused = || LoadError::OutOfMemory {
            tensor: name.into(),
            bytes: tensor.run_bytes(self.dtype),
        };
        HostTensor::reserve(tensor.run_dtype(self.dtype), tensor.elements()).ok_or_else(refused)
    }

    /// Reads a tensor. Returns false where the load ended meanwhile.
    fn fill(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        let wanted = tensor.run_dtype(self.dtype);
        if wanted == tensor.stored {
            self.read_direct(tensor, ticket, into)
        } else if wanted.size_in_bytes() >= tensor.stored.size_in_bytes() {
            self.read_widened(tensor, ticket, into)
        } else {
            self.read_narrowed(tensor, ticket, into)
        }
    }

    /// Reads into the tensor's own memory. Returns whether it was read to its end.
    fn read_direct(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        self.each_chunk(tensor, ticket, CHUNK, |elements, offset| {
            let read = into.read_new(elements.end, |buf| {
                self.files.read_new(&tensor.file, offset, buf)
            });
            if read {
                return Ok(());
            }
            into.grow_to(elements.end);
            let chunk = into.bytes_of(elements);
            self.files.read_at(&tensor.file, offset, chunk)
        })
    }

    /// Reads each chunk where it is converted: into the end of the memory that its elements will have.
    fn read_widened(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        let mut scratch = Scratch::new();
        self.each_chunk(tensor, ticket, CHUNK, |elements, offset| {
            into.grow_to(elements.end);
            let chunk = into.tail_mut(elements.clone(), tensor.stored);
            self.files.read_at(&tensor.file, offset, chunk)?;
            into.widen_tail(elements, tensor.stored, &mut scratch);
            Ok(())
        })
    }

    /// Reads through a small buffer: the stored bytes are more than the memory has.
    fn read_narrowed(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        let size = tensor.stored.size_in_bytes();
        let mut scratch = Scratch::new();
        self.each_chunk(tensor, ticket, Scratch::BYTES, |elements, offset| {
            into.grow_to(elements.end);
            let chunk = scratch.bytes_mut(elements.len() * size);
            self.files.read_at(&tensor.file, offset, chunk)?;
            into.convert(elements.start, tensor.stored, chunk);
            Ok(())
        })
    }

    /// Reads a tensor in chunks of so many bytes of the file: some elements, from an offset on. Returns whether it came
    /// to the end.
    fn each_chunk(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        bytes: usize,
        mut read: impl FnMut(Range<usize>, u64) -> Result<(), LoadError>,
    ) -> Result<bool, LoadError> {
        let size = tensor.stored.size_in_bytes();
        for elements in chunks(tensor.elements(), bytes / size) {
            if !ticket.is_wanted_after_rest() {
                return Ok(false);
            }
            let (bytes, before) = (elements.len() * size, elements.start * size);
            read(elements, tensor.offset + before as u64)?;
            self.count(bytes);
        }
        Ok(ticket.is_wanted())
    }

    /// Shows progress.
    pub(super) fn count(&self, bytes: usize) {
        self.progress.add(bytes as u64);
        self.signal.raise();
    }
}

/// One batch's part in a load.
pub(super) struct Share<C> {
    pub(super) reading: Arc<Reading<C>>,
    /// The batch's place in the load.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "only what goes to a card waits for buffers")
    )]
    pub(super) place: usize,
    pub(super) ticket: Weak<Ticket>,
    /// Hears that the whole batch was read.
    pub(super) done: Sender<()>,
}

impl<C> Share<C> {
    /// Reads a batch, unless the load has ended before its turn came.
    pub(super) fn read_all(self, batch: Batch) {
        if self.read(batch) {
            self.tell_read();
        }
    }

    /// The load's ticket, unless the load has ended.
    pub(super) fn wanted(&self) -> Option<Arc<Ticket>> {
        self.ticket.upgrade().filter(|ticket| ticket.is_wanted())
    }

    pub(super) fn tell_read(&self) {
        let _ = self.done.try_send(());
    }

    /// The first failure ends the load for all its readers at once.
    pub(super) fn fail(&self, ticket: &Ticket, error: LoadError) {
        ticket.fail(error);
        let _ = self.reading.owner.try_send(ToOwner::Failed);
    }

    /// Returns whether the whole batch was read.
    fn read(&self, batch: Batch) -> bool {
        let Some(ticket) = self.wanted() else {
            return false;
        };
        // Declared after the ticket: gone before it.
        let _direct = DirectReads::begin();
        let read = self.reading.read(batch, &ticket);
        let whole = read.unwrap_or_else(|error| {
            self.fail(&ticket, error);
            false
        });
        if !whole {
            // Here and not when there is nothing more to do: then it would cost a frame.
            clear_this_heap(|| ticket.rest().wait_while(|| true));
        }
        whole
    }
}
