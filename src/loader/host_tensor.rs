//! [`HostTensor`]: a tensor in host memory that is taken first and filled later.

use std::{mem::MaybeUninit, ops::Range, slice};

use bytemuck::{AnyBitPattern, Zeroable, allocation::try_zeroed_vec, cast_slice_mut};
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use super::cast::{Scratch, convert_bytes, widen_bytes};
use crate::memory::{MAPPED, prefer_huge_pages};

/// The values of one tensor, in the format that it will run in.
pub(super) enum HostTensor {
    U8(Vec<u8>),
    U32(Vec<u32>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    BF16(Vec<bf16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Runs `$body` with `$values` bound to the vector inside, whatever its format.
macro_rules! with_values {
    ($tensor:expr, $values:ident => $body:expr) => {
        match $tensor {
            HostTensor::U8($values) => $body,
            HostTensor::U32($values) => $body,
            HostTensor::I16($values) => $body,
            HostTensor::I32($values) => $body,
            HostTensor::I64($values) => $body,
            HostTensor::BF16($values) => $body,
            HostTensor::F16($values) => $body,
            HostTensor::F32($values) => $body,
            HostTensor::F64($values) => $body,
        }
    };
}

impl HostTensor {
    /// Takes the memory, in huge pages where it is large; [`None`] where the system refuses or candle cannot
    /// hold the format. [`grow_to`](Self::grow_to) makes it usable, from the front.
    pub(super) fn reserve(dtype: DType, elements: usize) -> Option<Self> {
        Some(match dtype {
            DType::U8 => Self::U8(reserve(elements)?),
            DType::U32 => Self::U32(reserve(elements)?),
            DType::I16 => Self::I16(reserve(elements)?),
            DType::I32 => Self::I32(reserve(elements)?),
            DType::I64 => Self::I64(reserve(elements)?),
            DType::BF16 => Self::BF16(reserve(elements)?),
            DType::F16 => Self::F16(reserve(elements)?),
            DType::F32 => Self::F32(reserve(elements)?),
            DType::F64 => Self::F64(reserve(elements)?),
            _ => return None,
        })
    }

    /// Where the memory lies that was taken.
    pub(super) fn addresses(&self) -> Range<usize> {
        fn of<T>(values: &Vec<T>) -> Range<usize> {
            let first = values.as_ptr().addr();
            first..first + values.capacity() * size_of::<T>()
        }
        with_values!(self, values => of(values))
    }

    /// Has the elements up to `end` be there, as zeros; the memory does not move.
    pub(super) fn grow_to(&mut self, end: usize) {
        fn grow<T: Zeroable + Clone>(values: &mut Vec<T>, end: usize) {
            if values.len() < end {
                values.resize(end, T::zeroed());
            }
        }
        with_values!(self, values => grow(values, end));
    }

    /// Has `read` fill what follows the elements that are there, up to `end`, without zeros in it first. Returns false where
    /// they are there, or it does not.
    pub(super) fn read_new(
        &mut self,
        end: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> Option<&mut [u8]>,
    ) -> bool {
        with_values!(self, values => read_new(values, end, read))
    }

    /// The memory of some elements, to read into without a second copy.
    pub(super) fn bytes_of(&mut self, elements: Range<usize>) -> &mut [u8] {
        let size = self.element_size();
        let bytes = elements.start * size..elements.end * size;
        &mut self.bytes_mut()[bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        with_values!(self, values => cast_slice_mut(values))
    }

    /// Fills the elements from `start` on with converted ones: `bytes` are little-endian floats in the
    /// format `stored`.
    pub(super) fn convert(&mut self, start: usize, stored: DType, bytes: &[u8]) {
        let end = start + bytes.len() / stored.size_in_bytes();
        let wanted = self.dtype();
        convert_bytes(self.bytes_of(start..end), wanted, stored, bytes);
    }

    /// The end of the memory of some elements: their stored bytes fit there, before they are widened.
    pub(super) fn tail_mut(&mut self, elements: Range<usize>, stored: DType) -> &mut [u8] {
        let stored = elements.len() * stored.size_in_bytes();
        let bytes = self.bytes_of(elements);
        let start = bytes.len() - stored;
        &mut bytes[start..]
    }

    /// Converts elements whose stored bytes lie in their [`tail_mut`](Self::tail_mut), without a second buffer.
    pub(super) fn widen_tail(
        &mut self,
        elements: Range<usize>,
        stored: DType,
        scratch: &mut Scratch,
    ) {
        let wanted = self.dtype();
        widen_bytes(self.bytes_of(elements), wanted, stored, scratch);
    }

    fn dtype(&self) -> DType {
        fn of<T: WithDType>(_: &[T]) -> DType {
            T::DTYPE
        }
        with_values!(self, values => of(values))
    }

    fn element_size(&self) -> usize {
        self.dtype().size_in_bytes()
    }

    /// Hands the memory to candle: no copy on the CPU, an upload elsewhere.
    pub(super) fn into_tensor(
        self,
        shape: &[usize],
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        with_values!(self, values => Tensor::from_vec(values, shape, device))
    }
}

/// Memory for elements. Large blocks are mapped anew, and come as zeros that nobody has to write. Zeros of a block that
/// was used before would be written at once; so there the block is left alone until it is grown into, chunk by chunk.
fn reserve<T: Zeroable>(elements: usize) -> Option<Vec<T>> {
    let mut values = Vec::new();
    if elements.checked_mul(size_of::<T>())? >= MAPPED {
        values = try_zeroed_vec(elements).ok()?;
        prefer_huge_pages(&mut values);
    } else {
        values.try_reserve_exact(elements).ok()?;
    }
    Some(values)
}

fn read_new<T: AnyBitPattern>(
    values: &mut Vec<T>,
    end: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> Option<&mut [u8]>,
) -> bool {
    let Some(more) = end.checked_sub(values.len()).filter(|more| *more > 0) else {
        return false;
    };
    let spare = &mut values.spare_capacity_mut()[..more];
    #[expect(unsafe_code, reason = "bytes need not be initialized to be read into")]
    // SAFETY: the same memory, borrowed for as long; `MaybeUninit<u8>` fits anywhere, and whatever is written there is one
    // again.
    let bytes = unsafe {
        let first = spare.as_mut_ptr().cast::<MaybeUninit<u8>>();
        slice::from_raw_parts_mut(first, size_of_val(spare))
    };
    let expected = bytes.as_ptr().cast::<u8>()..bytes.as_ptr_range().end.cast();
    let Some(read) = read(bytes) else {
        return false;
    };
    assert_eq!(
        read.as_ptr_range(),
        expected,
        "a read returns what it fills"
    );
    #[expect(
        unsafe_code,
        reason = "only the reader knows that the elements are there"
    )]
    // SAFETY: they lie within the capacity, their bytes are initialized, as the slice that was returned shows, which is
    // just them, and any bytes are a value of `T`.
    unsafe {
        values.set_len(end);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::*;

    /// Fills a buffer with a byte.
    fn fill(buf: &mut [MaybeUninit<u8>], byte: u8) -> &mut [u8] {
        for slot in &mut *buf {
            slot.write(byte);
        }
        #[expect(unsafe_code, reason = "as a reader does it")]
        // SAFETY: every byte was just written.
        unsafe {
            buf.assume_init_mut()
        }
    }

    fn values(tensor: HostTensor) -> Vec<f32> {
        let HostTensor::F32(values) = tensor else {
            panic!("it was reserved as F32");
        };
        values
    }

    #[test]
    fn memory_is_read_into_from_where_it_is_filled_on() {
        let mut tensor = HostTensor::reserve(DType::F32, 3).expect("memory");
        assert!(tensor.read_new(1, |buf| Some(fill(buf, 0))));
        assert!(!tensor.read_new(2, |_| None), "nothing was read");
        assert!(tensor.read_new(3, |buf| Some(fill(buf, 0x3f))));
        assert!(!tensor.read_new(3, |_| panic!("all is there")));
        let read = f32::from_bits(0x3f3f_3f3f);
        assert_eq!(values(tensor), [0.0, read, read]);
    }

    #[test]
    #[should_panic(expected = "a read returns what it fills")]
    fn a_reader_that_returns_other_memory_is_not_believed() {
        // Where the leak sanitizer finds it.
        static OTHER: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
        let mut tensor = HostTensor::reserve(DType::F32, 3).expect("memory");
        tensor.read_new(3, |_| {
            let other = Vec::leak(vec![0; 12]);
            OTHER.store(other.as_mut_ptr(), Ordering::Relaxed);
            Some(other)
        });
    }

    #[test]
    fn a_part_of_it_is_converted_and_nothing_around_it() {
        let stored = [1.5_f32, -2.0, 0.25].map(f16::from_f32);
        let bytes = bytemuck::bytes_of(&stored);
        let mut tensor = HostTensor::reserve(DType::F32, 9).expect("memory");
        tensor.grow_to(9);
        tensor.convert(1, DType::F16, bytes);
        tensor.tail_mut(5..8, DType::F16).copy_from_slice(bytes);
        tensor.widen_tail(5..8, DType::F16, &mut Scratch::new());
        let expected = [0.0, 1.5, -2.0, 0.25, 0.0, 1.5, -2.0, 0.25, 0.0];
        assert_eq!(values(tensor), expected);
    }
}
