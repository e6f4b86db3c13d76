//! Reading weights: tensor by tensor, in chunks, straight into the memory that candle will use.

use std::sync::{Arc, Weak};

use async_channel::Sender;
use candle_core::DType;

use super::{
    cast::{HostTensor, Scratch},
    owner::{Arrived, ToOwner},
    plan::TensorPlan,
    progress::ProgressCell,
    ticket::Ticket,
};
use crate::{LoadError, ModelFiles, panics::caught, signal::Signal};

/// Bytes read at once: the longest a reader goes on after a cancel.
const CHUNK: usize = 2 << 20;

/// Small tensors are read together, up to this many bytes.
const BATCH: u64 = 8 << 20;

/// A run of tensors that one reader reads.
pub(super) type Batch = Vec<(Arc<str>, TensorPlan)>;

/// Cuts the tensors, in the order of their files, into runs for the readers.
pub(super) fn batches(tensors: impl IntoIterator<Item = (Arc<str>, TensorPlan)>) -> Vec<Batch> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|(_, a), (_, b)| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.stored_bytes();
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.push((name, tensor)),
            _ => {
                batches.push(vec![(name, tensor)]);
                room = BATCH;
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}

/// What every reader of one load needs.
pub(super) struct Reading<C> {
    pub(super) files: Arc<dyn ModelFiles>,
    pub(super) dtype: DType,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) owner: Sender<ToOwner<C>>,
    pub(super) signal: Signal,
}

impl<C> Reading<C> {
    /// Hands each tensor of a batch to the device thread. Returns false for a load that nobody wants
    /// any more: that is no error, it just ends early.
    fn read(&self, batch: Batch, ticket: &Arc<Ticket>) -> Result<bool, LoadError> {
        for (name, tensor) in batch {
            let read = caught("read", || self.read_tensor(&name, &tensor, ticket))?;
            let Some(values) = read else {
                return Ok(false);
            };
            let arrived = Arrived {
                name,
                plan: tensor,
                values,
                _ticket: ticket.clone(),
            };
            // Refused by an owner that has ended: the tensor is dropped here.
            let _ = self.owner.try_send(ToOwner::Tensor(arrived));
        }
        Ok(true)
    }

    /// Returns [`None`] where the load ended meanwhile.
    fn read_tensor(
        &self,
        name: &str,
        tensor: &TensorPlan,
        ticket: &Ticket,
    ) -> Result<Option<HostTensor>, LoadError> {
        let wanted = tensor.run_dtype(self.dtype);
        if !ticket.is_wanted() {
            return Ok(None);
        }
        let mut values =
            HostTensor::zeros(wanted, tensor.elements()).ok_or_else(|| LoadError::OutOfMemory {
                tensor: name.into(),
                bytes: tensor.run_bytes(self.dtype),
            })?;
        let whole = if wanted == tensor.stored {
            self.read_direct(tensor, ticket, values.bytes_mut())?
        } else if wanted.size_in_bytes() >= tensor.stored.size_in_bytes() {
            self.read_widened(tensor, ticket, &mut values)?
        } else {
            self.read_narrowed(tensor, ticket, &mut values)?
        };
        Ok(whole.then_some(values))
    }

    /// Reads into the tensor's own memory. Returns whether it was read to its end.
    fn read_direct(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut [u8],
    ) -> Result<bool, LoadError> {
        let mut offset = tensor.offset;
        for chunk in into.chunks_mut(CHUNK) {
            if !ticket.is_wanted() {
                return Ok(false);
            }
            self.files.read_at(&tensor.file, offset, chunk)?;
            offset += chunk.len() as u64;
            self.count(chunk.len());
        }
        Ok(ticket.is_wanted())
    }

    /// Reads each chunk where it is converted: into the end of the memory that its elements will have.
    fn read_widened(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        let (total, size) = (tensor.elements(), tensor.stored.size_in_bytes());
        let mut scratch = Scratch::new();
        for start in (0..total).step_by(CHUNK / size) {
            if !ticket.is_wanted() {
                return Ok(false);
            }
            let elements = start..total.min(start + CHUNK / size);
            let chunk = into.tail_mut(elements.clone(), tensor.stored);
            let bytes = chunk.len();
            let offset = tensor.offset + (start * size) as u64;
            self.files.read_at(&tensor.file, offset, chunk)?;
            into.widen_tail(elements, tensor.stored, &mut scratch);
            self.count(bytes);
        }
        Ok(ticket.is_wanted())
    }

    /// Reads through a small buffer: the stored bytes are more than the memory has.
    fn read_narrowed(
        &self,
        tensor: &TensorPlan,
        ticket: &Ticket,
        into: &mut HostTensor,
    ) -> Result<bool, LoadError> {
        let total = tensor.stored_bytes() as usize;
        let mut scratch = Scratch::new();
        for start in (0..total).step_by(Scratch::BYTES) {
            if !ticket.is_wanted() {
                return Ok(false);
            }
            let chunk = scratch.bytes_mut((total - start).min(Scratch::BYTES));
            let offset = tensor.offset + start as u64;
            self.files.read_at(&tensor.file, offset, chunk)?;
            into.convert(start / tensor.stored.size_in_bytes(), tensor.stored, chunk);
            self.count(chunk.len());
        }
        Ok(ticket.is_wanted())
    }

    fn count(&self, bytes: usize) {
        self.progress.add(bytes as u64);
        self.signal.raise();
    }
}

/// The work of one reader: reads a batch, unless the load has ended before its turn came. The first
/// failure ends the load for all its readers at once. Returns whether the whole batch was read.
pub(super) fn read_batch<C>(reading: &Reading<C>, batch: Batch, ticket: &Weak<Ticket>) -> bool {
    let Some(ticket) = ticket.upgrade().filter(|ticket| ticket.is_wanted()) else {
        return false;
    };
    match reading.read(batch, &ticket) {
        Ok(whole) => whole,
        Err(error) => {
            ticket.fail(error);
            let _ = reading.owner.try_send(ToOwner::Failed);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(file: &str, offset: u64, elements: usize) -> (Arc<str>, TensorPlan) {
        let plan = TensorPlan {
            file: file.into(),
            offset,
            shape: vec![elements],
            stored: DType::F32,
            wanted: None,
            uses: None,
        };
        (format!("{file}@{offset}").into(), plan)
    }

    #[test]
    fn tensors_are_read_in_file_order_small_ones_together() {
        let mib = 1 << 18;
        let tensors = [
            tensor("b", 0, 9 * mib),
            tensor("a", 4 << 20, 3 * mib),
            tensor("a", 0, mib),
            tensor("a", 7 << 20, 4 * mib),
            tensor("a", 11 << 20, 1),
        ];
        let names: Vec<Vec<_>> = batches(tensors)
            .iter()
            .map(|batch| batch.iter().map(|(name, _)| name.to_string()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["a@0", "a@4194304", "a@7340032"],
                vec!["a@11534336"],
                vec!["b@0"],
            ]
        );
    }
}
