//! DDPM: formula (7) of Ho et al. 2020 (<https://arxiv.org/abs/2006.11239>).

use super::{Alphas, SchedulerConfig, VarianceType, clip, picture_and_noise};

/// The least variance, since diffusers takes its logarithm.
const LEAST: f32 = 1e-20;

pub(super) fn step(
    config: &SchedulerConfig,
    alphas: Alphas,
    is_last: bool,
    samples: &mut [f32],
    output: &[f32],
    noise: impl FnOnce() -> Vec<f32>,
) {
    let Alphas { now, after } = alphas;
    let alpha = now / after;
    let of_picture = after.sqrt() * (1.0 - alpha) / (1.0 - now);
    let of_sample = alpha.sqrt() * (1.0 - after) / (1.0 - now);
    let deviation = deviation(config.variance_type, alphas);
    let new_noise = if is_last { Vec::new() } else { noise() };
    for (i, (sample, output)) in samples.iter_mut().zip(output).enumerate() {
        let (picture, _) = picture_and_noise(config.prediction_type, now, *sample, *output);
        let added = new_noise.get(i).map_or(0.0, |noise| deviation * *noise);
        *sample = of_picture * clip(config, picture) + of_sample * *sample + added;
    }
}

fn deviation(variance: VarianceType, Alphas { now, after }: Alphas) -> f32 {
    let beta = 1.0 - now / after;
    let small = ((1.0 - after) / (1.0 - now) * beta).max(LEAST);
    match variance {
        VarianceType::FixedSmall => small.sqrt(),
        VarianceType::FixedSmallLog => (0.5 * small.ln()).exp(),
        VarianceType::FixedLarge => beta.max(0.0).sqrt(),
    }
}
