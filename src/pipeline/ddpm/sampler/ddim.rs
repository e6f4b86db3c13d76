//! DDIM: formula (12) of Song et al. 2020 (<https://arxiv.org/abs/2010.02502>).

use super::{
    Level, Method, Prediction, SchedulerConfig,
    schedule::{alphas_cumprod, timesteps},
};

pub(super) struct Ddim {
    config: SchedulerConfig,
    eta: f64,
    row: usize,
    /// How many of the training's time steps one step leaves behind.
    stride: usize,
    alphas: Vec<f32>,
    timesteps: Vec<f64>,
}

impl Ddim {
    pub(super) fn new(config: &SchedulerConfig, eta: f64, steps: usize, row: usize) -> Self {
        let timesteps = timesteps(config, steps);
        Self {
            eta,
            row,
            stride: config.num_train_timesteps / steps,
            alphas: alphas_cumprod(config),
            timesteps: timesteps.into_iter().map(|step| step as f64).collect(),
            config: config.clone(),
        }
    }

    fn now(&self, step: usize) -> usize {
        self.timesteps[step] as usize
    }

    /// It looks one even stride further.
    fn alpha_after(&self, step: usize) -> f32 {
        let last = if self.config.set_alpha_to_one {
            1.0
        } else {
            self.alphas[0]
        };
        let after = self.now(step).checked_sub(self.stride);
        after.map_or(last, |after| self.alphas[after])
    }
}

impl Method for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn level(&self, step: usize) -> Level {
        Level::of_alpha(self.alphas[self.now(step)])
    }

    fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        noise: &mut dyn FnMut() -> Vec<f32>,
    ) {
        let (now, after) = (self.alphas[self.now(step)], self.alpha_after(step));
        let level = Level::of_alpha(now);
        let variance = (1.0 - after) / (1.0 - now) * (1.0 - now / after);
        let deviation = self.eta as f32 * variance.max(0.0).sqrt();
        let direction = (1.0 - after - deviation * deviation).max(0.0).sqrt();
        let kind = self.config.prediction_type;
        let seen = samples.iter().zip(&prediction.output);
        let mut pictures: Vec<f32> = seen
            .map(|(sample, output)| level.picture(kind, *sample, *output))
            .collect();
        self.config.clipping.apply(&mut pictures, self.row);
        let new_noise = if self.eta > 0.0 { noise() } else { Vec::new() };
        for (i, sample) in samples.iter_mut().enumerate() {
            let seen_noise = level.noise(kind, *sample, prediction.output[i]);
            let added = new_noise.get(i).map_or(0.0, |noise| deviation * *noise);
            *sample = after.sqrt() * pictures[i] + direction * seen_noise + added;
        }
    }
}
