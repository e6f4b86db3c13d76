//! The norm over groups of channels, with the activation that nearly always follows.

use candle_core::{Result, Tensor};
use candle_nn::{GroupNorm, Init, Module, VarBuilder};
use rayon::prelude::*;

use super::{
    ActivationFunction,
    kernels::{channels_first, channels_last, has_kernels, numbers, silu, vectorized},
};

/// Numbers that a thread works on at once.
const CHUNK: usize = 1 << 15;

/// Pixels whose sum `f32` is exact enough for.
const FEW: usize = 32;

/// A norm over groups of channels.
pub(super) struct Norm {
    plain: GroupNorm,
    scale: Tensor,
    shift: Tensor,
    groups: usize,
    eps: f64,
}

impl Norm {
    pub(super) fn new(
        groups: usize,
        channels: usize,
        eps: f64,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        let scale = vb.get_with_hints(channels, "weight", Init::Const(1.0))?;
        let shift = vb.get_with_hints(channels, "bias", Init::Const(0.0))?;
        let plain = GroupNorm::new(scale.clone(), shift.clone(), channels, groups, eps)?;
        Ok(Self {
            plain,
            scale,
            shift,
            groups,
            eps,
        })
    }

    /// `picture` has the shape `(batch, channels, height, width)`.
    pub(super) fn forward(
        &self,
        picture: &Tensor,
        then: Option<ActivationFunction>,
    ) -> Result<Tensor> {
        if !has_kernels(picture.dtype(), picture.device()) {
            let normed = self.plain.forward(picture)?;
            return then.map_or(Ok(normed.clone()), |then| then.apply(&normed));
        }
        let is_silu = then == Some(ActivationFunction::Silu);
        let normed = self.norm(picture, is_silu)?;
        match then {
            Some(then) if !is_silu => then.apply(&normed),
            _ => Ok(normed),
        }
    }

    fn norm(&self, picture: &Tensor, silu: bool) -> Result<Tensor> {
        let picture = channels_last(picture)?;
        let (batch, height, width, channels) = picture.dims4()?;
        let size = height * width * channels;
        let mut to = vec![0.0; batch * size];
        {
            let (from, scale) = (numbers(&picture)?, numbers(&self.scale)?);
            let shift = numbers(&self.shift)?;
            let (scale, shift): (&[f32], &[f32]) = (&scale, &shift);
            let samples = to.par_chunks_mut(size).zip(from.par_chunks(size));
            samples.for_each(|(to, from)| {
                let (means, by) = self.lines(from, scale);
                apply(from, [&means, &by, shift], silu, to);
            });
        }
        let made = Tensor::from_vec(to, (batch, height, width, channels), picture.device())?;
        channels_first(&made)
    }

    /// The mean of each channel's group, and what the channel is multiplied by.
    fn lines(&self, from: &[f32], scale: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let channels = scale.len();
        let each = channels / self.groups;
        let numbers = (from.len() / self.groups) as f64;
        let means: Vec<f32> = in_groups(&sums(from, None, channels), each)
            .map(|sum| (sum / numbers) as f32)
            .collect();
        let means = spread(&means, each);
        let squares = sums(from, Some(&means), channels);
        let by =
            in_groups(&squares, each).map(|sum| (1.0 / (sum / numbers + self.eps).sqrt()) as f32);
        let mut by = spread(&by.collect::<Vec<_>>(), each);
        by.iter_mut()
            .zip(scale)
            .for_each(|(by, scale)| *by *= scale);
        (means, by)
    }
}

/// Adds up each group.
fn in_groups(channels: &[f64], each: usize) -> impl Iterator<Item = f64> {
    channels.chunks_exact(each).map(|group| group.iter().sum())
}

/// One number for each channel of a group.
fn spread(groups: &[f32], each: usize) -> Vec<f32> {
    let groups = groups.iter();
    groups
        .flat_map(|group| std::iter::repeat_n(*group, each))
        .collect()
}

/// Adds up each channel, or the squares of what is left without `means`.
fn sums(from: &[f32], means: Option<&[f32]>, channels: usize) -> Vec<f64> {
    let parts = from.par_chunks(chunk(channels)).map(|part| {
        let mut sums = vec![0.0; channels];
        let mut few = vec![0.0; channels];
        for part in part.chunks(FEW * channels) {
            few.fill(0.0);
            vectorized(
                #[inline(always)]
                || match means {
                    Some(means) => add_squares(part, means, &mut few),
                    None => add_numbers(part, &mut few),
                },
            );
            add_up(&mut sums, few.iter().map(|few| f64::from(*few)));
        }
        sums
    });
    parts.reduce(
        || vec![0.0; channels],
        |mut sums, more| {
            add_up(&mut sums, more.into_iter());
            sums
        },
    )
}

fn add_up(sums: &mut [f64], more: impl Iterator<Item = f64>) {
    sums.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

#[inline(always)]
fn add_numbers(from: &[f32], sums: &mut [f32]) {
    for pixel in from.chunks_exact(sums.len()) {
        for (sum, number) in sums.iter_mut().zip(pixel) {
            *sum += number;
        }
    }
}

#[inline(always)]
fn add_squares(from: &[f32], means: &[f32], sums: &mut [f32]) {
    for pixel in from.chunks_exact(sums.len()) {
        for ((sum, number), mean) in sums.iter_mut().zip(pixel).zip(means) {
            let off = number - mean;
            *sum += off * off;
        }
    }
}

/// Whole pixels that a thread works on at once, in numbers.
fn chunk(channels: usize) -> usize {
    (CHUNK / channels).max(1) * channels
}

fn apply(from: &[f32], lines: [&[f32]; 3], with_silu: bool, to: &mut [f32]) {
    let channels = lines[0].len();
    let chunks = to.par_chunks_mut(chunk(channels));
    chunks
        .zip(from.par_chunks(chunk(channels)))
        .for_each(|(to, from)| {
            vectorized(
                #[inline(always)]
                || {
                    let pixels = to.chunks_exact_mut(channels);
                    for (to, from) in pixels.zip(from.chunks_exact(channels)) {
                        if with_silu {
                            apply_line(from, lines, to, silu);
                        } else {
                            apply_line(from, lines, to, |number| number);
                        }
                    }
                },
            );
        });
}

/// Takes the mean away first: where it is much larger than what is left, a sum of products would lose digits.
#[inline(always)]
fn apply_line(
    from: &[f32],
    [means, by, add]: [&[f32]; 3],
    to: &mut [f32],
    then: impl Fn(f32) -> f32,
) {
    let lines = means.iter().zip(by).zip(add);
    for ((to, from), ((mean, by), add)) in to.iter_mut().zip(from).zip(lines) {
        *to = then((from - mean) * by + add);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::pipeline::ddpm::unet::kernels::tests::{largest, random};

    #[test]
    fn it_is_candles_norm() {
        for (groups, channels, side) in [(1, 3, 5), (4, 32, 9), (32, 128, 20), (5, 5, 1)] {
            let weights = [
                ("weight".to_owned(), random(&[channels], 1)),
                ("bias".to_owned(), random(&[channels], 2)),
            ];
            let vb = VarBuilder::from_tensors(weights.into(), DType::F32, &Device::Cpu);
            let norm = Norm::new(groups, channels, 1e-5, vb).expect("a norm");
            let picture = random(&[2, channels, side, side], 3).affine(3.0, 10.0);
            let picture = picture.expect("a picture");
            let plain = norm.plain.forward(&picture).expect("a picture");
            for (then, expected) in [
                (None, plain.clone()),
                (Some(ActivationFunction::Silu), plain.silu().expect("one")),
                (Some(ActivationFunction::Relu), plain.relu().expect("one")),
            ] {
                let made = norm.forward(&picture, then).expect("a picture");
                let error = largest(&(made - &expected).expect("the same shape"));
                assert!(error < 2e-5 * largest(&plain), "{groups} groups: {error}");
            }
        }
    }
}
