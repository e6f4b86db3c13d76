//! What the network computes on the CPU, in place of candle's own operations.
//!
//! Pictures lie in memory pixel by pixel there, all channels of one after the other (*channels last*), so that a
//! convolution is a product of matrices without copies in another order. A tensor still has the shape `(batch,
//! channels, height, width)`, with strides to match: candle's operations take it as it is.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use pulp::Arch;

mod exp;
mod linear;
mod mix;
mod product;

pub(super) use exp::{exp, silu};
pub(super) use linear::linear;
pub(super) use mix::{ROWS, mix};
pub(super) use product::{Matrix, multiply};

/// Runs loops that were inlined into `work` with the widest instructions that the processor has.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Whether the kernels compute with these tensors: the CPU's, of 32-bit numbers.
pub(in super::super) fn has_kernels(dtype: DType, device: &Device) -> bool {
    device.is_cpu() && dtype == DType::F32
}

/// Returns a picture as `(batch, height, width, channels)`, in one run; without a copy where it lies so.
pub(super) fn channels_last(picture: &Tensor) -> Result<Tensor> {
    picture.permute((0, 2, 3, 1))?.contiguous()
}

/// Returns what [`channels_last`] took, without a copy.
pub(super) fn channels_first(picture: &Tensor) -> Result<Tensor> {
    picture.permute((0, 3, 1, 2))
}

/// Does something to each number, in the order in which they lie in memory.
pub(super) fn each_number(
    picture: &Tensor,
    work: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if has_kernels(picture.dtype(), picture.device()) {
        channels_first(&work(&channels_last(picture)?)?)
    } else {
        work(picture)
    }
}

/// Joins the channels of two pictures.
pub(super) fn joined(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    if has_kernels(first.dtype(), first.device()) {
        let both = [channels_last(first)?, channels_last(second)?];
        channels_first(&Tensor::cat(&both, 3)?)
    } else {
        Tensor::cat(&[first, second], 1)
    }
}

/// Returns the numbers of a tensor that lies in one run.
///
/// # Errors
/// It is not on the CPU, or not `f32`, or not in one run.
pub(super) fn numbers(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some(range)) => Ok(Numbers { storage, range }),
        _ => bail!("a kernel wants 32-bit numbers in one run, on the CPU"),
    }
}

/// A locked storage, and the part of it that is meant.
struct Numbers<S> {
    storage: S,
    range: (usize, usize),
}

impl<S: Deref<Target = Storage>> Deref for Numbers<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.range.0..self.range.1],
            _ => &[],
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::D;
    use candle_nn::{Linear, Module, ops::softmax_last_dim};

    use super::*;

    /// Numbers between -1 and 1.
    pub(in super::super) fn random(shape: &[usize], seed: u32) -> Tensor {
        let count: usize = shape.iter().product();
        let numbers = (0..count as u32).map(|index| {
            let mixed = (index + 1).wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(0x9e37_79b9);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        });
        Tensor::from_vec(numbers.collect::<Vec<f32>>(), shape, &Device::Cpu).expect("a tensor")
    }

    pub(in super::super) fn largest(tensor: &Tensor) -> f32 {
        let all = tensor.abs().and_then(|tensor| tensor.flatten_all());
        let largest = all.and_then(|all| all.max(0)?.to_scalar());
        largest.expect("numbers")
    }

    #[track_caller]
    fn assert_close(made: &Tensor, expected: &Tensor) {
        let error = largest(&(made - expected).expect("the same shape"));
        assert!(error < 1e-5 * largest(expected), "{error}");
    }

    #[test]
    fn a_linear_layer_is_candles() {
        for (rows, inputs, outputs) in [(1, 3, 5), (300, 32, 17), (129, 64, 64)] {
            let layer = Linear::new(random(&[outputs, inputs], 1), Some(random(&[outputs], 2)));
            let from = random(&[rows, inputs], 3);
            let made = linear(&from, &layer).expect("rows");
            assert_close(&made, &layer.forward(&from).expect("rows"));
        }
    }

    #[test]
    fn attention_is_two_products_and_a_softmax() {
        for (batch, pixels, channels, heads) in [(2, 9, 8, 2), (1, 200, 32, 1), (3, 64, 48, 3)] {
            let [query, key, value] =
                [1, 2, 3].map(|seed| random(&[batch, pixels, channels], seed));
            let made = mix([&query, &key, &value], heads).expect("mixed");
            let size = channels / heads;
            let split = |all: &Tensor| {
                let heads = all.reshape((batch, pixels, heads, size))?;
                heads.transpose(1, 2)?.contiguous()
            };
            let expected = || {
                let keys = split(&key)?.transpose(2, 3)?.contiguous()?;
                let scores = (split(&query)?.matmul(&keys)? / (size as f64).sqrt())?;
                let mixed = softmax_last_dim(&scores)?.matmul(&split(&value)?)?;
                mixed.transpose(1, 2)?.flatten_from(2)
            };
            assert_close(&made, &expected().expect("mixed"));
        }
    }

    #[test]
    fn channels_are_joined_in_order() {
        let pictures = [random(&[2, 3, 4, 5], 1), random(&[2, 2, 4, 5], 2)];
        let made = joined(&pictures[0], &pictures[1]).expect("a picture");
        assert_close(&made, &Tensor::cat(&pictures, 1).expect("a picture"));
    }

    #[test]
    fn only_numbers_in_one_run_are_lent() {
        let rows = random(&[4, 6], 1);
        assert_eq!(numbers(&rows).expect("numbers").len(), 24);
        let part = rows.narrow(0, 1, 2).expect("rows");
        assert_eq!(numbers(&part).expect("numbers").len(), 12);
        assert!(numbers(&rows.t().expect("columns")).is_err());
        let other = rows.to_dtype(DType::F64).expect("numbers");
        assert!(numbers(&other).is_err());
        assert!(rows.sum(D::Minus1).is_ok());
    }
}
