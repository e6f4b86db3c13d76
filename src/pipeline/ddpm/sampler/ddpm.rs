//! DDPM: formula (7) of Ho et al. 2020 (<https://arxiv.org/abs/2006.11239>).

use super::{
    Level, Method, Prediction, SchedulerConfig, VarianceType,
    schedule::{alphas_cumprod, timesteps},
};

/// The least variance, since diffusers takes its logarithm.
const LEAST: f32 = 1e-20;

pub(super) struct Ddpm {
    config: SchedulerConfig,
    row: usize,
    alphas: Vec<f32>,
    timesteps: Vec<f64>,
}

impl Ddpm {
    pub(super) fn new(config: &SchedulerConfig, steps: usize, row: usize) -> Self {
        let timesteps = timesteps(config, steps);
        Self {
            row,
            alphas: alphas_cumprod(config),
            timesteps: timesteps.into_iter().map(|step| step as f64).collect(),
            config: config.clone(),
        }
    }

    fn alpha(&self, step: usize) -> f32 {
        let timestep = self.timesteps.get(step);
        timestep.map_or(1.0, |timestep| self.alphas[*timestep as usize])
    }
}

impl Method for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn level(&self, step: usize) -> Level {
        Level::of_alpha(self.alpha(step))
    }

    fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        noise: &mut dyn FnMut() -> Vec<f32>,
    ) {
        let (now, after) = (self.alpha(step), self.alpha(step + 1));
        let alpha = now / after;
        let of_picture = after.sqrt() * (1.0 - alpha) / (1.0 - now);
        let of_sample = alpha.sqrt() * (1.0 - after) / (1.0 - now);
        let level = Level::of_alpha(now);
        let seen = samples.iter().zip(&prediction.output);
        let mut pictures: Vec<f32> = seen
            .map(|(sample, output)| level.picture(self.config.prediction_type, *sample, *output))
            .collect();
        self.config.clipping.apply(&mut pictures, self.row);
        for (sample, picture) in samples.iter_mut().zip(pictures) {
            *sample = of_picture * picture + of_sample * *sample;
        }
        // The very last adds no noise.
        if self.timesteps[step] > 0.0 {
            let deviation = Deviation::new(self.config.variance_type, now, after);
            for (i, (sample, noise)) in samples.iter_mut().zip(noise()).enumerate() {
                let predicted = prediction.variance.as_ref().map(|variance| variance[i]);
                *sample += deviation.of(predicted) * noise;
            }
        }
    }
}

/// How much noise a step adds.
struct Deviation {
    kind: VarianceType,
    /// The posterior's variance.
    small: f32,
    beta: f32,
}

impl Deviation {
    fn new(kind: VarianceType, now: f32, after: f32) -> Self {
        let beta = 1.0 - now / after;
        let small = ((1.0 - after) / (1.0 - now) * beta).max(LEAST);
        Self { kind, small, beta }
    }

    /// For one number, with what the network predicted for it.
    fn of(&self, predicted: Option<f32>) -> f32 {
        match (self.kind, predicted) {
            (VarianceType::FixedSmallLog, _) => (0.5 * self.small.ln()).exp(),
            (VarianceType::FixedLarge, _) => self.beta.max(0.0).sqrt(),
            (VarianceType::Learned, Some(variance)) => variance.max(0.0).sqrt(),
            (VarianceType::LearnedRange, Some(place)) => {
                let part = (place + 1.0) / 2.0;
                let log = part * self.beta.ln() + (1.0 - part) * self.small.ln();
                (0.5 * log).exp()
            }
            _ => self.small.sqrt(),
        }
    }
}
