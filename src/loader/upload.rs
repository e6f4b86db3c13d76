//! [`Upload`]: puts tensors on a card out of pinned buffers, while the readers fill the next ones. On the device thread.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    mem::{forget, take},
    sync::Arc,
    time::Duration,
};

use bevy::platform::time::Instant;
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Storage, Tensor,
    backend::BackendDevice,
    cuda_backend::{
        CudaStorageSlice as Slice, WrapErr,
        cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DriverError},
    },
    op::BackpropOp,
};
use tracing::warn;

use super::{
    lender::Lender,
    packing::buffer_length,
    pinned::Pinned,
    plan::TensorPlan,
    readers,
    staging::{Chunk, Piece, Stage},
    weights::Weights,
};
use crate::device::settle;

/// Buffers for each reader: as many as it fills are copied meanwhile.
const BUFFERS: usize = 2;

/// How soon a copy is looked at again. A card copies a buffer in about as long.
const LOOK: Duration = Duration::from_micros(100);

/// The tensors of one load on their way to a card.
pub(super) struct Upload {
    device: CudaDevice,
    dtype: DType,
    /// Where readers borrow.
    lender: Lender<Pinned>,
    /// Tensors of which a part has arrived.
    growing: HashMap<Arc<str>, Growing>,
    /// Buffers that are copied from, the oldest first, each with what follows its copies.
    flying: VecDeque<(Pinned, Option<CudaEvent>)>,
}

impl Upload {
    /// Takes the buffers of a load.
    pub(super) fn new(device: &CudaDevice, stage: &Stage) -> Result<Self, DriverError> {
        let count = BUFFERS * readers::count_of_one_load();
        let length = buffer_length(stage.bytes, count);
        let lender = Lender::new(stage.readers.clone(), length);
        let stream = device.cuda_stream();
        for _ in 0..count {
            lender.put(Pinned::new(stream.context(), length, &stage.home)?);
        }
        Ok(Self {
            device: device.clone(),
            dtype: stage.dtype,
            lender,
            growing: HashMap::new(),
            flying: VecDeque::new(),
        })
    }

    /// Where the readers borrow the buffers.
    pub(super) fn lender(&self) -> Lender<Pinned> {
        self.lender.clone()
    }

    /// Starts to copy what a buffer has. A tensor that is whole then goes to the weights: whatever is computed with it
    /// comes after the copy on the device's stream.
    pub(super) fn put(&mut self, chunk: Chunk, weights: &mut Weights) -> candle_core::Result<()> {
        let Chunk { pieces, buffer, .. } = chunk;
        // Kept first: a copy that has begun needs it, however this ends.
        self.flying.push_back((buffer, None));
        for piece in pieces {
            self.put_piece(piece, weights)?;
        }
        let done = self.device.cuda_stream().record_event(None).w()?;
        if let Some((_, event)) = self.flying.back_mut() {
            *event = Some(done);
        }
        Ok(())
    }

    fn put_piece(&mut self, piece: Piece, weights: &mut Weights) -> candle_core::Result<()> {
        let Piece {
            name,
            plan,
            elements,
            at,
        } = piece;
        let dtype = plan.run_dtype(self.dtype);
        let mut growing = match self.growing.entry(name.clone()) {
            Entry::Occupied(known) => known,
            Entry::Vacant(new) => {
                new.insert_entry(Growing::new(&self.device, dtype, plan.elements())?)
            }
        };
        let bytes = elements.len() * dtype.size_in_bytes();
        let (buffer, _) = self.flying.back().expect("a chunk keeps its buffer here");
        let from = &buffer.bytes()[at..][..bytes];
        growing.get_mut().copy(from, elements.start)?;
        if growing.get().missing == 0 {
            let tensor = growing.remove().into_tensor(&plan);
            weights.insert(name, tensor, plan.uses);
        }
        Ok(())
    }

    /// Lends the buffers again whose copies are done. Returns when to look again, where some are not.
    pub(super) fn land(&mut self) -> candle_core::Result<Option<Instant>> {
        while let Some((_, Some(event))) = self.flying.front() {
            if !event.try_is_complete().w()? {
                return Ok(Some(Instant::now() + LOOK));
            }
            if let Some((buffer, _)) = self.flying.pop_front() {
                self.lender.put(buffer);
            }
        }
        Ok(None)
    }
}

impl Drop for Upload {
    /// Ends the lending. A cancel comes while buffers are copied from: at most two for each reader.
    fn drop(&mut self) {
        self.lender.close();
        if self.flying.is_empty() {
            return;
        }
        // Memory of which nobody can say whether it is still copied from stays.
        if let Err(error) = settle(&Device::Cuda(self.device.clone())) {
            warn!("buffers are left behind, since the device cannot be waited for: {error}");
            forget(take(&mut self.flying));
        }
    }
}

/// Makes a tensor without elements. A driver refuses to give no memory, so it has some that nobody looks at.
pub(super) fn empty(
    device: &CudaDevice,
    dtype: DType,
    shape: &[usize],
) -> candle_core::Result<Tensor> {
    let storage = Storage::Cuda(device.zeros_impl(&1.into(), dtype)?);
    Ok(Tensor::from_storage(
        storage,
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// A tensor of which a part has arrived.
struct Growing {
    storage: CudaStorage,
    /// Elements.
    missing: usize,
}

impl Growing {
    /// Takes the card's memory. It holds anything until the last copy.
    fn new(device: &CudaDevice, dtype: DType, elements: usize) -> candle_core::Result<Self> {
        #[expect(unsafe_code, reason = "memory is taken as it is, and then copied into")]
        // SAFETY: a tensor is made of it only when all its elements have been copied there.
        let slice = unsafe {
            match dtype {
                DType::U8 => Slice::U8(device.alloc(elements)?),
                DType::U32 => Slice::U32(device.alloc(elements)?),
                DType::I16 => Slice::I16(device.alloc(elements)?),
                DType::I32 => Slice::I32(device.alloc(elements)?),
                DType::I64 => Slice::I64(device.alloc(elements)?),
                DType::BF16 => Slice::BF16(device.alloc(elements)?),
                DType::F16 => Slice::F16(device.alloc(elements)?),
                DType::F32 => Slice::F32(device.alloc(elements)?),
                DType::F64 => Slice::F64(device.alloc(elements)?),
                other => candle_core::bail!("{other:?} cannot be put on a card"),
            }
        };
        let device = device.clone();
        Ok(Self {
            storage: CudaStorage { slice, device },
            missing: elements,
        })
    }

    /// Copies to the elements from `start` on.
    fn copy(&mut self, from: &[u8], start: usize) -> candle_core::Result<()> {
        let stream = self.storage.device.cuda_stream();
        let copied = match &mut self.storage.slice {
            Slice::U8(into) => copy(&stream, from, into, start),
            Slice::U32(into) => copy(&stream, from, into, start),
            Slice::I16(into) => copy(&stream, from, into, start),
            Slice::I32(into) => copy(&stream, from, into, start),
            Slice::I64(into) => copy(&stream, from, into, start),
            Slice::BF16(into) => copy(&stream, from, into, start),
            Slice::F16(into) => copy(&stream, from, into, start),
            Slice::F32(into) => copy(&stream, from, into, start),
            Slice::F64(into) => copy(&stream, from, into, start),
            _ => unreachable!("nothing else is taken"),
        };
        self.missing -= copied.w()?;
        Ok(())
    }

    fn into_tensor(self, plan: &TensorPlan) -> Tensor {
        let storage = Storage::Cuda(self.storage);
        Tensor::from_storage(storage, plan.shape.as_slice(), BackpropOp::none(), false)
    }
}

/// Starts a copy, and returns how many elements it has.
fn copy<T>(
    stream: &Arc<CudaStream>,
    from: &[u8],
    into: &mut CudaSlice<T>,
    start: usize,
) -> Result<usize, DriverError> {
    let bytes = into.num_bytes();
    #[expect(unsafe_code, reason = "cudarc has no safe view of numbers as bytes")]
    // SAFETY: any bytes are numbers of these formats, and the view has as many bytes as the slice.
    let view = unsafe { into.transmute_mut::<u8>(bytes) };
    let mut view = view.expect("a view of the same length");
    let at = start * size_of::<T>();
    stream.memcpy_htod(from, &mut view.slice_mut(at..at + from.len()))?;
    Ok(from.len() / size_of::<T>())
}
