//! DPM-Solver++: the multistep algorithms of Lu et al. 2022 (<https://arxiv.org/abs/2211.01095>).

use std::collections::VecDeque;

use super::{Level, Method, Prediction, SchedulerConfig, SolverType, sigmas::Sigmas};
use crate::InferError;

/// Below so many steps the last ones use fewer predictions.
const FEW_STEPS: usize = 15;

pub(super) struct DpmSolver {
    config: SchedulerConfig,
    row: usize,
    sigmas: Sigmas,
    /// The predicted pictures of the last steps, the latest in front.
    pictures: VecDeque<Vec<f32>>,
}

impl DpmSolver {
    pub(super) fn new(
        config: &SchedulerConfig,
        steps: usize,
        row: usize,
    ) -> Result<Self, InferError> {
        let sigmas = Sigmas::for_solver(config, steps);
        let (before, end) = sigmas.levels.split_at(sigmas.timesteps.len());
        let falls = before.windows(2).all(|pair| pair[0] > pair[1]);
        if !falls || before.last().is_none_or(|last| !(end[0] <= *last)) {
            let expected = "fewer steps: two of them would be at the same noise level";
            return Err(InferError::invalid_request("steps", steps, expected));
        }
        Ok(Self {
            config: config.clone(),
            row,
            sigmas,
            pictures: VecDeque::new(),
        })
    }

    /// How many predictions a step uses.
    fn order(&self, step: usize) -> usize {
        let steps = self.sigmas.timesteps.len();
        let lowers = self.config.lower_order_final && steps < FEW_STEPS;
        let ends_at_zero = self.sigmas.levels[steps] == 0.0;
        let most = match steps - step {
            1 if self.config.euler_at_final || lowers || ends_at_zero => 1,
            2 if lowers => 2,
            _ => 3,
        };
        most.min(self.config.solver_order).min(self.pictures.len())
    }

    /// The logarithm of signal to noise at a step.
    fn lambda(&self, step: usize) -> f32 {
        let level = self.level(step);
        level.signal.ln() - level.noise.ln()
    }

    fn remember(&mut self, step: usize, samples: &[f32], prediction: &Prediction) {
        let (level, kind) = (self.level(step), self.config.prediction_type);
        let seen = samples.iter().zip(&prediction.output);
        let mut picture: Vec<f32> = seen
            .map(|(sample, output)| level.picture(kind, *sample, *output))
            .collect();
        let clipping = self.config.clipping.if_dynamic();
        clipping.apply(&mut picture, self.row);
        self.pictures.push_front(picture);
        self.pictures.truncate(self.config.solver_order);
    }
}

impl Method for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.sigmas.timesteps
    }

    fn level(&self, step: usize) -> Level {
        Level::of_sigma(self.sigmas.levels[step])
    }

    fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        _noise: &mut dyn FnMut() -> Vec<f32>,
    ) {
        self.remember(step, samples, prediction);
        let (now, after) = (self.level(step), self.level(step + 1));
        let h = self.lambda(step + 1) - self.lambda(step);
        if h == 0.0 {
            // The last of some spacings is where it ends already.
            return;
        }
        let of_sample = after.noise / now.noise;
        let shrink = (-h).exp() - 1.0;
        // How strongly the picture and its first two derivatives count.
        let of_picture = after.signal * shrink;
        let slope = after.signal * (shrink / h + 1.0);
        let curve = after.signal * ((shrink + h) / (h * h) - 0.5);
        let order = self.order(step);
        let ratio = |back: usize| (self.lambda(step - back + 1) - self.lambda(step - back)) / h;
        let picture = |back: usize, i: usize| self.pictures[back][i];
        let difference =
            |back: usize, i: usize| 1.0 / ratio(back) * (picture(back - 1, i) - picture(back, i));
        for (i, sample) in samples.iter_mut().enumerate() {
            let first = of_sample * *sample - of_picture * picture(0, i);
            *sample = match (order, self.config.solver_type) {
                (1, _) => first,
                (2, SolverType::Midpoint) => first - 0.5 * of_picture * difference(1, i),
                (2, SolverType::Heun) => first + slope * difference(1, i),
                _ => {
                    let (r0, r1) = (ratio(1), ratio(2));
                    let change = difference(1, i) - difference(2, i);
                    let d1 = difference(1, i) + r0 / (r0 + r1) * change;
                    let d2 = 1.0 / (r0 + r1) * change;
                    first + slope * d1 - curve * d2
                }
            };
        }
    }
}
