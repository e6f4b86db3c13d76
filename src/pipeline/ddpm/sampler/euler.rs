//! Euler's method: algorithm 2 of Karras et al. 2022 (<https://arxiv.org/abs/2206.00364>) without its noise.

use super::{
    Level, Method, Prediction, PredictionType, SchedulerConfig, TimestepSpacing,
    sigmas::{Sigmas, euler_spacing},
};

pub(super) struct Euler {
    prediction: PredictionType,
    start_scale: f32,
    sigmas: Sigmas,
}

impl Euler {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Self {
        let sigmas = Sigmas::for_euler(config, steps);
        let largest = sigmas.levels.iter().fold(0_f32, |a, b| a.max(*b));
        let start_scale = match euler_spacing(config) {
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
            _ => largest,
        };
        Self {
            prediction: config.prediction_type,
            start_scale,
            sigmas,
        }
    }
}

impl Method for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.sigmas.timesteps
    }

    /// Its samples are the whole picture, and more noise.
    fn level(&self, step: usize) -> Level {
        Level {
            signal: 1.0,
            noise: self.sigmas.levels[step],
        }
    }

    fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        _noise: &mut dyn FnMut() -> Vec<f32>,
    ) {
        let (now, after) = (self.sigmas.levels[step], self.sigmas.levels[step + 1]);
        let square = now * now + 1.0;
        for (sample, output) in samples.iter_mut().zip(&prediction.output) {
            let picture = match self.prediction {
                PredictionType::Epsilon => *sample - now * output,
                PredictionType::Sample => *output,
                PredictionType::VPrediction => output * (-now / square.sqrt()) + *sample / square,
            };
            let slope = (*sample - picture) / now;
            *sample += slope * (after - now);
        }
    }

    fn start_scale(&self) -> f32 {
        self.start_scale
    }

    fn view_scale(&self, step: usize) -> f32 {
        let sigma = self.sigmas.levels[step];
        1.0 / (sigma * sigma + 1.0).sqrt()
    }
}
