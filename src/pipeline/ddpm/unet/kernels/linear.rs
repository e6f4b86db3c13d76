//! A linear layer over many rows.

use candle_core::{Result, Tensor};
use candle_nn::Linear;
use rayon::prelude::*;

use super::{Matrix, multiply, numbers};

/// Rows that a thread works on at once.
const ROWS: usize = 128;

/// Applies a layer to each row of `(rows, inputs)`.
pub(in super::super) fn linear(rows: &Tensor, layer: &Linear) -> Result<Tensor> {
    let (count, _) = rows.dims2()?;
    let (outputs, inputs) = layer.weight().dims2()?;
    let mut to = vec![0.0; count * outputs];
    {
        let (from, weights) = (numbers(rows)?, numbers(layer.weight())?);
        let bias = layer.bias().map(numbers).transpose()?;
        let (from, weights, bias): (&[f32], &[f32], _) = (&from, &weights, bias.as_deref());
        let some = count.div_ceil(rayon::current_num_threads()).min(ROWS);
        let parts = to.par_chunks_mut(some * outputs);
        parts
            .zip(from.par_chunks(some * inputs))
            .for_each(|(to, from)| {
                if let Some(bias) = bias {
                    to.chunks_exact_mut(outputs)
                        .for_each(|to| to.copy_from_slice(bias));
                }
                let size = (to.len() / outputs, inputs, outputs);
                let (left, right) = (Matrix::rows(from, inputs), Matrix::columns(weights, inputs));
                multiply((to, outputs), size, left, right, (1.0, true));
            });
    }
    Tensor::from_vec(to, (count, outputs), rows.device())
}
