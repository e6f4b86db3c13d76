//! The conversion between number formats while reading, in plain bytes: some tensors have a buffer of their own, others share one.

use bytemuck::{AnyBitPattern, cast_slice, cast_slice_mut};
use candle_core::DType;
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Fills `into` with numbers of the format `wanted`: `bytes` are little-endian floats in the format `stored`.
pub(super) fn convert_bytes(into: &mut [u8], wanted: DType, stored: DType, bytes: &[u8]) {
    match wanted {
        DType::F32 => convert_to_f32(cast_slice_mut(into), stored, bytes),
        DType::F64 => convert::<f64>(cast_slice_mut(into), stored, bytes, |value| value),
        DType::F16 => convert(cast_slice_mut(into), stored, bytes, f16::from_f64),
        DType::BF16 => convert(cast_slice_mut(into), stored, bytes, bf16::from_f64),
        _ => unreachable!("only floats are converted while they are read"),
    }
}

/// Converts numbers whose stored bytes lie at the end of the memory that they will have: from the front, what is written
/// never reaches what is still to be read.
pub(super) fn widen_bytes(into: &mut [u8], wanted: DType, stored: DType, scratch: &mut Scratch) {
    let (size, stored_size) = (wanted.size_in_bytes(), stored.size_in_bytes());
    let elements = into.len() / size;
    let tail = into.len() - elements * stored_size;
    for start in (0..elements).step_by(BLOCK) {
        let count = BLOCK.min(elements - start);
        let block = scratch.bytes_mut(count * stored_size);
        block.copy_from_slice(&into[tail + start * stored_size..][..count * stored_size]);
        convert_bytes(
            &mut into[start * size..][..count * size],
            wanted,
            stored,
            block,
        );
    }
}

/// The common case, with the processor's own instructions for half floats.
fn convert_to_f32(into: &mut [f32], stored: DType, bytes: &[u8]) {
    match stored {
        DType::F16 => aligned::<f16>(bytes).convert_to_f32_slice(&mut into[..bytes.len() / 2]),
        DType::BF16 => aligned::<bf16>(bytes).convert_to_f32_slice(&mut into[..bytes.len() / 2]),
        _ => convert(into, stored, bytes, |value| value as f32),
    }
}

fn convert<T>(into: &mut [T], stored: DType, bytes: &[u8], from_f64: impl Fn(f64) -> T) {
    fn each<S: AnyBitPattern, T>(into: &mut [T], bytes: &[u8], convert: impl Fn(S) -> T) {
        for (into, value) in into.iter_mut().zip(aligned::<S>(bytes)) {
            *into = convert(*value);
        }
    }
    match stored {
        DType::F16 => each(into, bytes, |value: f16| from_f64(value.to_f64())),
        DType::BF16 => each(into, bytes, |value: bf16| from_f64(value.to_f64())),
        DType::F32 => each(into, bytes, |value: f32| from_f64(f64::from(value))),
        DType::F64 => each(into, bytes, from_f64),
        other => unreachable!("{other:?} is no float that is read"),
    }
}

/// The bytes of a [`Scratch`] as numbers: its alignment fits.
fn aligned<T: AnyBitPattern>(bytes: &[u8]) -> &[T] {
    cast_slice(bytes)
}

/// Elements converted at once.
const BLOCK: usize = 4096;

/// A small buffer for [`BLOCK`] elements, aligned for every format.
pub(super) struct Scratch(Vec<u64>);

impl Scratch {
    /// Its size in bytes.
    pub(super) const BYTES: usize = BLOCK * size_of::<u64>();

    pub(super) fn new() -> Self {
        Self(vec![0; BLOCK])
    }

    pub(super) fn bytes_mut(&mut self, length: usize) -> &mut [u8] {
        &mut cast_slice_mut::<u64, u8>(&mut self.0)[..length]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn bytes_of(tensor: &Tensor) -> Vec<u8> {
        let file = safetensors::serialize([("a", tensor)], None).expect("bytes");
        let file = safetensors::SafeTensors::deserialize(&file).expect("a file");
        file.tensor("a").expect("the tensor").data().to_vec()
    }

    fn converted(stored: DType, bytes: &[u8], wanted: DType) -> Vec<u8> {
        let elements = bytes.len() / stored.size_in_bytes();
        let mut memory = vec![0_u64; elements];
        let into = &mut cast_slice_mut(&mut memory)[..elements * wanted.size_in_bytes()];
        let mut scratch = Scratch::new();
        if into.len() < bytes.len() {
            for (into, bytes) in into
                .chunks_mut(BLOCK * wanted.size_in_bytes())
                .zip(bytes.chunks(BLOCK * stored.size_in_bytes()))
            {
                let block = scratch.bytes_mut(bytes.len());
                block.copy_from_slice(bytes);
                convert_bytes(into, wanted, stored, block);
            }
        } else {
            let tail = into.len() - bytes.len();
            into[tail..].copy_from_slice(bytes);
            widen_bytes(into, wanted, stored, &mut scratch);
        }
        into.to_vec()
    }

    #[test]
    fn every_float_becomes_every_float_as_candle_does_it() {
        let formats = [DType::F16, DType::BF16, DType::F32, DType::F64];
        let edges = [0.0, -0.0, 1e-40, -6e-8, 65_504.0, f64::INFINITY];
        let values: Vec<f64> = (-5000..5000)
            .map(|i| f64::from(i) * 0.37)
            .chain(edges)
            .collect();
        for stored in formats {
            let source = Tensor::from_slice(&values, values.len(), &Device::Cpu).expect("a tensor");
            let source = source.to_dtype(stored).expect("a cast");
            let bytes = bytes_of(&source);
            for wanted in formats {
                let theirs = bytes_of(&source.to_dtype(wanted).expect("a cast"));
                let ours = converted(stored, &bytes, wanted);
                assert!(ours == theirs, "{stored:?} to {wanted:?}");
            }
        }
    }
}
