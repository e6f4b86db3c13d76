//! A convolution as one product for each tile: of its unfolded pixels and the weights.

use std::ops::Range;

use rayon::prelude::*;

use super::{Picture, Shape, Start};
use crate::pipeline::ddpm::unet::kernels::{Matrix, multiply};

/// Numbers in an unfolded tile: half of what a core's own cache has.
const TILE: usize = 1 << 16;

/// Output pixels in a tile. There is work for each thread, and a tile is not so small that weights are read in vain.
pub(super) fn tile(shape: &Shape, pixels: usize, threads: usize) -> usize {
    let fits = TILE / shape.unfolded();
    let share = pixels.div_ceil(threads);
    fits.max(16).min(share).max(1)
}

/// Convolves `from` to `to`; `weights` is `(size · size · inputs, outputs)`.
pub(super) fn convolve(
    shape: &Shape,
    from: Picture,
    weights: &[f32],
    start: &Start,
    to: &mut [f32],
) {
    let (height, width) = shape.output(from.height, from.width);
    let pixels = to.len() / shape.outputs;
    let tile = tile(shape, pixels, rayon::current_num_threads());
    let (inner, columns) = (shape.unfolded(), shape.outputs);
    to.par_chunks_mut(tile * columns).enumerate().for_each_init(
        Vec::new,
        |unfolded, (index, to)| {
            let first = index * tile;
            let pixels = first..first + to.len() / columns;
            start.fill(to, pixels.start, height * width);
            let rows = pixels.len();
            let left = if shape.is_pointwise() {
                &from.numbers[first * inner..pixels.end * inner]
            } else {
                unfold(shape, from, (height, width), pixels, unfolded);
                unfolded
            };
            let (left, right) = (Matrix::rows(left, inner), Matrix::rows(weights, columns));
            multiply(
                (to, columns),
                (rows, inner, columns),
                left,
                right,
                (1.0, true),
            );
        },
    );
}

/// Copies what each output pixel sees.
fn unfold(
    shape: &Shape,
    from: Picture,
    (height, width): (usize, usize),
    pixels: Range<usize>,
    unfolded: &mut Vec<f32>,
) {
    let line = shape.size * shape.inputs;
    unfolded.resize(pixels.len() * shape.unfolded(), 0.0);
    let seen = unfolded.chunks_exact_mut(shape.unfolded());
    for (pixel, seen) in pixels.zip(seen) {
        let (line_of, x) = (pixel / width, pixel % width);
        let (sample, y) = (line_of / height, line_of % height);
        for (offset, seen) in seen.chunks_exact_mut(line).enumerate() {
            unfold_line(shape, from, (sample, y * shape.stride + offset, x), seen);
        }
    }
}

/// One line of what an output pixel sees, with zeros beyond the border.
fn unfold_line(
    shape: &Shape,
    from: Picture,
    (sample, y, x): (usize, usize, usize),
    seen: &mut [f32],
) {
    let (inputs, padding) = (shape.inputs, shape.padding);
    if !(padding..from.height + padding).contains(&y) {
        return seen.fill(0.0);
    }
    let line = (sample * from.height + y - padding) * from.width;
    let first = x * shape.stride;
    let last = (first + shape.size).min(from.width + padding);
    let start = first.max(padding);
    if start >= last {
        return seen.fill(0.0);
    }
    let pixels = line + start - padding..line + last - padding;
    let (before, rest) = seen.split_at_mut((start - first) * inputs);
    let (middle, after) = rest.split_at_mut(pixels.len() * inputs);
    before.fill(0.0);
    middle.copy_from_slice(&from.numbers[pixels.start * inputs..pixels.end * inputs]);
    after.fill(0.0);
}
