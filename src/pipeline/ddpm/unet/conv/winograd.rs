//! A 3 by 3 convolution with a quarter of the multiplications (Lavin and Gray 2015,
//! <https://arxiv.org/abs/1509.09308>, F(4 × 4, 3 × 3)).
//!
//! 1. Each tile of 4 by 4 output pixels sees 6 by 6 input pixels, which are transformed to 36 others.
//! 2. So are the weights of each pair of channels: 36 in place of 9.
//! 3. For each of the 36, a product of matrices: tiles by inputs, and inputs by outputs.
//! 4. What comes out is transformed back to 4 by 4 pixels.
//!
//! The points of interpolation are 0, ±1/√2, ±√2 and infinity: with those of the paper, 0, ±1, ±2 and infinity, the
//! error is four times as large.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use rayon::prelude::*;

use super::{Picture, Shape, Start};
use crate::pipeline::ddpm::unet::kernels::{Matrix, multiply, vectorized};

mod tile;

use tile::{LANES, TilePoints, back, forth};

/// Output pixels along a side of a tile, and input pixels.
const SIDE: usize = 4;
const SEEN: usize = SIDE + 2;

/// The points of interpolation besides 0 and infinity, with both signs.
const NEAR: f32 = FRAC_1_SQRT_2;
const FAR: f32 = SQRT_2;

/// Numbers in a transformed tile.
const POINTS: usize = SEEN * SEEN;

/// Tiles that a thread works on at once.
const TILES: usize = 32;

/// Whether it is worth it: there are tiles enough for the transformed weights to be used often.
pub(super) fn pays(shape: &Shape, (height, width): (usize, usize), batch: usize) -> bool {
    let fits = shape.size == 3 && shape.stride == 1 && (shape.padding, shape.trailing) == (1, 1);
    let tiles = batch * height * width / (SIDE * SIDE);
    let in_tiles = height.is_multiple_of(SIDE) && width.is_multiple_of(SIDE);
    fits && in_tiles && shape.inputs.min(shape.outputs) >= LANES && tiles >= MIN_TILES
}

const MIN_TILES: usize = 32;

/// Strips of four lines that a task works on.
fn strips(height: usize, width: usize, batch: usize, threads: usize) -> usize {
    let share = (batch * height / SIDE).div_ceil(threads);
    (TILES * SIDE / width).min(share).max(1)
}

/// Numbers that are held meanwhile.
pub(super) fn scratch(
    shape: &Shape,
    (height, width): (usize, usize),
    batch: usize,
    threads: usize,
) -> u128 {
    let plane = shape.inputs as u128 * shape.outputs as u128;
    let strips = strips(height, width, batch, threads);
    let tiles = (threads * strips * width / SIDE) as u128;
    let tiles = POINTS as u128 * tiles * (shape.inputs + shape.outputs) as u128;
    let rows = (3 * SEEN) as u128 * plane;
    POINTS as u128 * plane + rows.max(tiles)
}

/// Convolves `from` to `to`, both of the same size; `weights` is `(3 · 3 · inputs, outputs)`.
pub(super) fn convolve(
    shape: &Shape,
    from: Picture,
    weights: &[f32],
    start: &Start,
    to: &mut [f32],
) {
    let (height, width) = (from.height, from.width);
    let batch = to.len() / (height * width * shape.outputs);
    let weights = transform_weights(shape, weights);
    let strips = strips(height, width, batch, rayon::current_num_threads());
    let strip = SIDE * width;
    to.par_chunks_mut(strips * strip * shape.outputs)
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (index, to)| {
            let first = index * strips * strip;
            start.fill(to, first, height * width);
            let tiles = to.len() / shape.outputs / (SIDE * SIDE);
            scratch.resize(tiles, shape);
            scratch.transform(from, (first, tiles), shape.inputs);
            scratch.multiply(shape, tiles, &weights);
            scratch.transform_back((tiles, width), shape.outputs, to);
        });
}

/// The first pixel of a tile, counted from the first of all.
fn place(tile: usize, width: usize) -> usize {
    let across = width / SIDE;
    tile / across * SIDE * width + tile % across * SIDE
}

/// What a thread keeps from one task to the next: point by point, tile by tile.
#[derive(Default)]
struct Scratch {
    seen: Vec<f32>,
    made: Vec<f32>,
}

impl Scratch {
    fn resize(&mut self, tiles: usize, shape: &Shape) {
        self.seen.resize(POINTS * tiles * shape.inputs, 0.0);
        self.made.resize(POINTS * tiles * shape.outputs, 0.0);
    }

    fn transform(&mut self, from: Picture, (first, tiles): (usize, usize), channels: usize) {
        vectorized(
            #[inline(always)]
            || {
                for tile in 0..tiles {
                    let at = first + place(tile, from.width);
                    let points = TilePoints {
                        tile,
                        tiles,
                        channels,
                    };
                    forth(from, at, points, &mut self.seen);
                }
            },
        );
    }

    fn multiply(&mut self, shape: &Shape, tiles: usize, weights: &[f32]) {
        let (inner, columns) = (shape.inputs, shape.outputs);
        let seen = self.seen.chunks_exact(tiles * inner);
        let made = self.made.chunks_exact_mut(tiles * columns);
        let weights = weights.chunks_exact(inner * columns);
        for ((seen, made), weights) in seen.zip(made).zip(weights) {
            let (left, right) = (Matrix::rows(seen, inner), Matrix::rows(weights, columns));
            let size = (tiles, inner, columns);
            multiply((made, columns), size, left, right, (1.0, false));
        }
    }

    fn transform_back(&self, (tiles, width): (usize, usize), channels: usize, to: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || {
                for tile in 0..tiles {
                    let points = TilePoints {
                        tile,
                        tiles,
                        channels,
                    };
                    back(&self.made, points, (place(tile, width), width), to);
                }
            },
        );
    }
}

/// `(3, 3, inputs, outputs)` becomes `(36, inputs, outputs)`.
fn transform_weights(shape: &Shape, weights: &[f32]) -> Vec<f32> {
    let plane = shape.inputs * shape.outputs;
    let mut rows = vec![0.0; 3 * SEEN * plane];
    rows.par_chunks_mut(SEEN * plane)
        .zip(weights.par_chunks(3 * plane))
        .for_each(|(to, from)| expand(from, to, plane));
    let mut points = vec![0.0; POINTS * plane];
    points
        .par_chunks_mut(SEEN * plane)
        .enumerate()
        .for_each(|(column, to)| {
            let [a, b, c] = [0, 1, 2].map(|row| &rows[(row * SEEN + column) * plane..][..plane]);
            expand_planes([a, b, c], to, plane);
        });
    points
}

fn expand(from: &[f32], to: &mut [f32], plane: usize) {
    let (a, rest) = from.split_at(plane);
    let (b, c) = rest.split_at(plane);
    expand_planes([a, b, c], to, plane);
}

/// Three weights in a line become six.
fn expand_planes([a, b, c]: [&[f32]; 3], to: &mut [f32], plane: usize) {
    vectorized(
        #[inline(always)]
        || {
            for (to, [x, y, z]) in to.chunks_exact_mut(plane).zip(EXPAND) {
                for (((to, a), b), c) in to.iter_mut().zip(a).zip(b).zip(c) {
                    *to = x * a + y * b + z * c;
                }
            }
        },
    );
}

const EXPAND: [[f32; 3]; SEEN] = [
    [1.0, 0.0, 0.0],
    [-2.0 / 3.0, -2.0 / 3.0 * NEAR, -1.0 / 3.0],
    [-2.0 / 3.0, 2.0 / 3.0 * NEAR, -1.0 / 3.0],
    [1.0 / 6.0, 1.0 / 6.0 * FAR, 1.0 / 3.0],
    [1.0 / 6.0, -1.0 / 6.0 * FAR, 1.0 / 3.0],
    [0.0, 0.0, 1.0],
];
