//! What carries weights to a card: a [`Lift`] fills pinned buffers, on the readers, and the device thread empties them.
//!
//! Only from pinned memory does a card copy by itself, while the device thread and the readers go on.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_channel::Sender;
use candle_core::DType;

use super::{
    batch::{Batch, CHUNK, chunks},
    cast::{Scratch, convert_bytes, widen_bytes},
    host_tensor::HostTensor,
    lender::Lender,
    owner::{HostNamed, ToOwner},
    packing::{Cut, pack},
    pinned::Pinned,
    plan::TensorPlan,
    readers::ReaderHandle,
    reading::{Reading, Share},
    shares::Shares,
    ticket::Ticket,
};
use crate::{LoadError, device::DeviceHandle, panics::caught, source::DirectReads};

/// Asks the owner for buffers, before the first read.
pub(super) struct Stage {
    /// The bytes that the weights will have on the card.
    pub(super) bytes: u64,
    /// The format that the weights run in.
    pub(super) dtype: DType,
    pub(super) home: DeviceHandle,
    /// Who fills the buffers.
    pub(super) readers: ReaderHandle,
    /// Hears [`None`] where there is no pinned memory to be had: then tensors go one by one.
    pub(super) tell: Sender<Option<Lender<Pinned>>>,
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

/// A tensor that is to be lifted.
type Named = (Arc<str>, Arc<TensorPlan>);

/// A batch on its way to a card, as far as it has come.
pub(super) struct Lift<C> {
    share: Share<C>,
    lender: Lender<Pinned>,
    /// The turn that it is read in, which waits with it.
    turn: Arc<Shares<C>>,
    tensors: Vec<Named>,
    /// What the next buffers are to have.
    loads: VecDeque<Vec<Cut>>,
}

impl<C: Send + 'static> Lift<C> {
    pub(super) fn new(
        share: Share<C>,
        batch: Batch,
        lender: Lender<Pinned>,
        turn: Arc<Shares<C>>,
    ) -> Self {
        let dtype = share.reading.dtype;
        let shared = |(name, plan)| (name, Arc::new(plan));
        let tensors: Vec<Named> = batch.into_iter().map(shared).collect();
        let sizes = tensors.iter().map(|(_, plan)| {
            let size = plan.run_dtype(dtype).size_in_bytes();
            (plan.elements(), size)
        });
        let loads = pack(sizes, lender.length).into();
        Self {
            share,
            lender,
            turn,
            tensors,
            loads,
        }
    }

    /// Returns false where it has to wait, or where the lending has ended.
    pub(super) fn begin(self) -> bool {
        if let Some(ticket) = self.share.wanted() {
            self.share.reading.send_empty(&self.tensors, &ticket);
        }
        self.go_on()
    }

    /// Fills buffers as long as there are free ones, and hands each to the device thread. Returns false where it has to
    /// wait for one, or where the lending has ended.
    fn go_on(mut self) -> bool {
        let lender = self.lender.clone();
        // Held by who reads, and not by who waits: a cancelled load is not to wait for a reader.
        let Some(ticket) = self.share.wanted() else {
            return true;
        };
        // Declared after the ticket: gone before it.
        let _direct = DirectReads::begin();
        while ticket.is_wanted()
            && let Some(cuts) = self.loads.pop_front()
        {
            let (place, asks) = (self.share.place, (self, cuts));
            let Some((buffer, (lift, cuts))) = lender.borrow(place, asks, Self::ask_again) else {
                return false;
            };
            self = lift;
            if let Err(error) = self.fill(buffer, cuts, &ticket) {
                self.share.fail(&ticket, error);
            }
        }
        if ticket.is_wanted() {
            self.share.tell_read();
        }
        true
    }

    fn ask_again((mut lift, cuts): (Self, Vec<Cut>)) {
        lift.loads.push_front(cuts);
        let turn = lift.turn.clone();
        if lift.go_on() {
            turn.go_on();
        }
    }

    /// Fills a buffer and hands it to the device thread; drops that of a load which nobody wants any more.
    fn fill(
        &self,
        mut buffer: Pinned,
        cuts: Vec<Cut>,
        ticket: &Arc<Ticket>,
    ) -> Result<(), LoadError> {
        let reading = &self.share.reading;
        let into = &mut buffer;
        let fill = || reading.fill_buffer(&self.tensors, &cuts, ticket, into.bytes_mut());
        if !caught("read", fill)? {
            return Ok(());
        }
        let piece = |cut: Cut| Piece {
            name: self.tensors[cut.tensor].0.clone(),
            plan: self.tensors[cut.tensor].1.clone(),
            elements: cut.elements,
            at: cut.at,
        };
        let chunk = Chunk {
            pieces: cuts.into_iter().map(piece).collect(),
            buffer,
            _ticket: ticket.clone(),
        };
        let _ = reading.owner.try_send(ToOwner::Chunk(chunk));
        Ok(())
    }
}

impl<C> Reading<C> {
    /// Tensors without elements lie in no buffer.
    fn send_empty(&self, tensors: &[Named], ticket: &Arc<Ticket>) {
        let without = tensors.iter().filter(|(_, plan)| plan.elements() == 0);
        let empty = |(name, plan): &Named| {
            Some(HostNamed {
                name: name.clone(),
                plan: TensorPlan::clone(plan),
                values: HostTensor::reserve(plan.run_dtype(self.dtype), 0)?,
            })
        };
        self.send(without.filter_map(empty).collect(), ticket);
    }

    fn fill_buffer(
        &self,
        tensors: &[Named],
        cuts: &[Cut],
        ticket: &Ticket,
        buffer: &mut [u8],
    ) -> Result<bool, LoadError> {
        let mut scratch = Scratch::new();
        for cut in cuts {
            let plan = &tensors[cut.tensor].1;
            let size = plan.run_dtype(self.dtype).size_in_bytes();
            let into = &mut buffer[cut.at..][..cut.elements.len() * size];
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
        let wanted = plan.run_dtype(self.dtype);
        let (from, to) = (plan.stored.size_in_bytes(), wanted.size_in_bytes());
        let step = if to < from { Scratch::BYTES } else { CHUNK } / from;
        for elements in chunks(into.len() / to, step) {
            if !ticket.is_wanted_after_rest() {
                return Ok(false);
            }
            let start = first + elements.start;
            let into = &mut into[elements.start * to..elements.end * to];
            self.fill_chunk(plan, start, into, scratch)?;
            self.count(elements.len() * from);
        }
        Ok(true)
    }

    /// Reads some elements, from the one at `start` on: through a small buffer where they get smaller, else into the
    /// end of the memory that they will have.
    fn fill_chunk(
        &self,
        plan: &TensorPlan,
        start: usize,
        into: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), LoadError> {
        let (stored, wanted) = (plan.stored, plan.run_dtype(self.dtype));
        let (from, to) = (stored.size_in_bytes(), wanted.size_in_bytes());
        let offset = plan.offset + (start * from) as u64;
        let bytes = into.len() / to * from;
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
        Ok(())
    }
}
