//! Weights in the order in which they are used, where they lie: no second copy is made.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// Makes `(size · size · inputs, outputs)` of `(outputs, inputs, size, size)`. The tensor is overwritten: what shares
/// its memory is, too. What a [`VarBuilder`](candle_nn::VarBuilder) hands out while a model is built, nobody else uses.
pub(super) fn pack(weights: Tensor) -> Result<Tensor> {
    let (outputs, inputs, size, _) = weights.dims4()?;
    let weights = weights.contiguous()?;
    let pack = Pack {
        outputs,
        inputs,
        points: size * size,
    };
    weights.inplace_op1(&pack)?;
    weights.reshape((size * size * inputs, outputs))
}

struct Pack {
    outputs: usize,
    inputs: usize,
    points: usize,
}

impl InplaceOp1 for Pack {
    fn name(&self) -> &'static str {
        "pack"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(numbers), Some((first, end))) => {
                self.reorder(&mut numbers[first..end]);
                Ok(())
            }
            _ => bail!("weights of 32-bit numbers in one run are packed"),
        }
    }
}

impl Pack {
    /// 1. In each output's weights, points go before inputs.
    /// 2. Runs of them, as long as divides both sides, are put in columns.
    /// 3. In each column, single numbers are.
    fn reorder(&self, numbers: &mut [f32]) {
        let Self {
            outputs,
            inputs,
            points,
        } = *self;
        let columns = inputs * points;
        numbers
            .par_chunks_mut(columns)
            .for_each_init(Vec::new, |copy, line| transpose(line, points, copy));
        let run = common_divisor(outputs, columns);
        let across = columns / run;
        move_runs(numbers, run, |at| at % across * outputs + at / across);
        numbers
            .par_chunks_mut(outputs * run)
            .for_each_init(Vec::new, |copy, block| transpose(block, run, copy));
    }
}

/// Makes columns of lines of so many numbers, with a copy.
fn transpose(numbers: &mut [f32], line: usize, copy: &mut Vec<f32>) {
    copy.clear();
    copy.extend_from_slice(numbers);
    let lines = numbers.len() / line;
    for (column, numbers) in numbers.chunks_exact_mut(lines).enumerate() {
        let column = copy.iter().skip(column).step_by(line);
        for (number, copied) in numbers.iter_mut().zip(column) {
            *number = *copied;
        }
    }
}

/// Moves each run of numbers to another place, along the circles that these moves are made of.
fn move_runs(numbers: &mut [f32], run: usize, to: impl Fn(usize) -> usize) {
    let mut is_there = vec![false; numbers.len() / run];
    let mut carried = vec![0.0; run];
    for first in 0..is_there.len() {
        if is_there[first] {
            continue;
        }
        carried.copy_from_slice(&numbers[first * run..][..run]);
        let mut at = first;
        while !is_there[first] {
            at = to(at);
            numbers[at * run..][..run].swap_with_slice(&mut carried);
            is_there[at] = true;
        }
    }
}

fn common_divisor(mut left: usize, mut right: usize) -> usize {
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ddpm::unet::kernels::tests::random;

    #[test]
    fn they_are_the_same_in_another_order() {
        for (outputs, inputs, size) in [(1, 1, 1), (4, 6, 3), (7, 5, 3), (32, 16, 3), (3, 8, 1)] {
            let weights = random(&[outputs, inputs, size, size], 1);
            let expected = weights.permute((2, 3, 1, 0)).and_then(|weights| {
                let all = weights.contiguous()?.flatten_all()?;
                all.to_vec1::<f32>()
            });
            let packed = pack(weights).expect("weights");
            assert_eq!(packed.dims(), [size * size * inputs, outputs]);
            let packed = packed.flatten_all().and_then(|all| all.to_vec1::<f32>());
            assert_eq!(packed.expect("numbers"), expected.expect("numbers"));
        }
    }
}
