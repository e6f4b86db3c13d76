//! DDIM: formula (12) of Song et al. 2020 (<https://arxiv.org/abs/2010.02502>).

use super::{Alphas, SchedulerConfig, clip, picture_and_noise};

pub(super) fn step(
    config: &SchedulerConfig,
    alphas: Alphas,
    eta: f64,
    samples: &mut [f32],
    output: &[f32],
    noise: impl FnOnce() -> Vec<f32>,
) {
    let Alphas { now, after } = alphas;
    let variance = (1.0 - after) / (1.0 - now) * (1.0 - now / after);
    let deviation = eta as f32 * variance.max(0.0).sqrt();
    let direction = (1.0 - after - deviation * deviation).max(0.0).sqrt();
    let new_noise = if eta > 0.0 { noise() } else { Vec::new() };
    for (i, (sample, output)) in samples.iter_mut().zip(output).enumerate() {
        let (picture, seen_noise) =
            picture_and_noise(config.prediction_type, now, *sample, *output);
        let added = new_noise.get(i).map_or(0.0, |noise| deviation * *noise);
        *sample = after.sqrt() * clip(config, picture) + direction * seen_noise + added;
    }
}
