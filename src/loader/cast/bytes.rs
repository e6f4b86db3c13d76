//! The conversion between number formats in plain bytes, for buffers that several tensors share.

use bytemuck::cast_slice_mut;
use candle_core::DType;
use half::{bf16, f16};

use super::{BLOCK, Scratch, convert, convert_to_f32};

/// Fills `into` with numbers of the format `wanted`: `bytes` are little-endian floats in the format `stored`.
pub(in crate::loader) fn convert_bytes(
    into: &mut [u8],
    wanted: DType,
    stored: DType,
    bytes: &[u8],
) {
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
pub(in crate::loader) fn widen_bytes(
    into: &mut [u8],
    wanted: DType,
    stored: DType,
    scratch: &mut Scratch,
) {
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

#[cfg(test)]
mod tests {
    use bytemuck::cast_slice;

    use super::{super::HostTensor, *};

    /// As the CPU's own path has it.
    fn on_host(stored: DType, bytes: &[u8], wanted: DType, elements: usize) -> Vec<u8> {
        let mut tensor = HostTensor::reserve(wanted, elements).expect("memory");
        tensor.grow_to(elements);
        tensor.convert(0, stored, bytes);
        tensor.bytes_of(0..elements).to_vec()
    }

    #[test]
    fn bytes_are_converted_as_tensors_are() {
        let formats = [DType::F16, DType::BF16, DType::F32, DType::F64];
        let elements = 2 * BLOCK + 17;
        let patterns = (0..elements as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let patterns: Vec<_> = patterns.collect();
        for stored in formats {
            let bytes = &cast_slice::<u64, u8>(&patterns)[..elements * stored.size_in_bytes()];
            for wanted in formats {
                let mut memory = vec![0_u64; elements];
                let into = cast_slice_mut::<u64, u8>(&mut memory);
                let into = &mut into[..elements * wanted.size_in_bytes()];
                if into.len() < bytes.len() {
                    convert_bytes(into, wanted, stored, bytes);
                } else {
                    let tail = into.len() - bytes.len();
                    into[tail..].copy_from_slice(bytes);
                    widen_bytes(into, wanted, stored, &mut Scratch::new());
                }
                let expected = on_host(stored, bytes, wanted, elements);
                assert!(into == expected, "{stored:?} to {wanted:?}");
            }
        }
    }
}
