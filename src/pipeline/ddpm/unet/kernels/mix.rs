//! What attention does with query, key and value.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Matrix, exp, multiply, numbers, vectorized};

/// Pixels whose scores are held at once, for each thread.
pub(in super::super) const ROWS: usize = 64;

/// Mixes the values of all pixels of a picture, for each of its pixels: as much of each as its key is like the
/// query. All three are `(batch, pixels, channels)`, and each head has its part of the channels.
pub(in super::super) fn mix([query, key, value]: [&Tensor; 3], heads: usize) -> Result<Tensor> {
    let (batch, pixels, channels) = query.dims3()?;
    let mut to = vec![0.0; batch * pixels * channels];
    {
        let [query, key, value] = [numbers(query)?, numbers(key)?, numbers(value)?];
        let [query, key, value]: [&[f32]; 3] = [&query, &key, &value];
        let picture = pixels * channels;
        let rows = pixels.div_ceil(rayon::current_num_threads()).min(ROWS);
        let samples = to.par_chunks_mut(picture).enumerate();
        samples.for_each(|(sample, to)| {
            let [query, key, value] =
                [query, key, value].map(|all| &all[sample * picture..][..picture]);
            let parts = to.par_chunks_mut(rows * channels);
            let parts = parts.zip(query.par_chunks(rows * channels));
            parts.for_each_init(Vec::new, |scores, (to, query)| {
                mix_rows([query, key, value], (channels, heads), scores, to);
            });
        });
    }
    Tensor::from_vec(to, (batch, pixels, channels), query.device())
}

fn mix_rows(
    [query, key, value]: [&[f32]; 3],
    (channels, heads): (usize, usize),
    scores: &mut Vec<f32>,
    to: &mut [f32],
) {
    let (rows, pixels, size) = (
        query.len() / channels,
        key.len() / channels,
        channels / heads,
    );
    let scale = 1.0 / (size as f32).sqrt();
    scores.resize(rows * pixels, 0.0);
    for first in (0..channels).step_by(size) {
        let query = Matrix::rows(&query[first..], channels);
        let key = Matrix::columns(&key[first..], channels);
        let value = Matrix::rows(&value[first..], channels);
        multiply(
            (scores, pixels),
            (rows, size, pixels),
            query,
            key,
            (scale, false),
        );
        scores.chunks_exact_mut(pixels).for_each(softmax);
        let scores = Matrix::rows(scores, pixels);
        let to = (&mut to[first..], channels);
        multiply(to, (rows, pixels, size), scores, value, (1.0, false));
    }
}

/// Makes parts of a whole.
fn softmax(scores: &mut [f32]) {
    let largest = vectorized(
        #[inline(always)]
        || fold(scores, f32::NEG_INFINITY, f32::max),
    );
    vectorized(
        #[inline(always)]
        || {
            for score in scores.iter_mut() {
                *score = exp(*score - largest);
            }
            let sum = fold(scores, 0.0, |sum, score| sum + score);
            for score in scores.iter_mut() {
                *score /= sum;
            }
        },
    );
}

/// Folds every eighth number, and then those: a compiler may not change an order by itself.
#[inline(always)]
fn fold(numbers: &[f32], first: f32, with: impl Fn(f32, f32) -> f32) -> f32 {
    let mut all = [first; 8];
    let eights = numbers.chunks_exact(8);
    let rest = eights.remainder();
    for eight in eights {
        for (all, number) in all.iter_mut().zip(eight) {
            *all = with(*all, *number);
        }
    }
    all.iter().chain(rest).copied().fold(first, with)
}
