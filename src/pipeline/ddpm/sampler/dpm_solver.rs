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
        let ends_below = before.last().is_some_and(|last| end[0] <= *last);
        if !(falls && ends_below) {
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

    /// How much the logarithm of signal to noise grows in a step.
    fn stride(&self, step: usize) -> f32 {
        let log = |level: Level| level.signal.ln() - level.noise.ln();
        log(self.level(step + 1)) - log(self.level(step))
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
        let parts = Parts::new(self, step);
        if parts.h == 0.0 {
            // The last of some spacings is where it ends already.
            return;
        }
        let (order, solver) = (self.order(step), self.config.solver_type);
        let ratio = |back: usize| self.stride(step - back) / parts.h;
        let ratios = [1, 2].map(|back| if back < order { ratio(back) } else { 1.0 });
        for (i, sample) in samples.iter_mut().enumerate() {
            let picture = |back: usize| self.pictures[back][i];
            let difference =
                |back: usize| 1.0 / ratios[back - 1] * (picture(back - 1) - picture(back));
            let first = parts.sample * *sample - parts.picture * picture(0);
            *sample = match (order, solver) {
                (1, _) => first,
                (2, SolverType::Midpoint) => first - 0.5 * parts.picture * difference(1),
                (2, SolverType::Heun) => first + parts.slope * difference(1),
                _ => {
                    let [r0, r1] = ratios;
                    let change = difference(1) - difference(2);
                    let d1 = difference(1) + r0 / (r0 + r1) * change;
                    let d2 = 1.0 / (r0 + r1) * change;
                    first + parts.slope * d1 - parts.curve * d2
                }
            };
        }
    }
}

/// How strongly the sample, the picture and its first two derivatives count in a step.
struct Parts {
    /// The step's stride.
    h: f32,
    sample: f32,
    picture: f32,
    slope: f32,
    curve: f32,
}

impl Parts {
    fn new(solver: &DpmSolver, step: usize) -> Self {
        let (now, after) = (solver.level(step), solver.level(step + 1));
        let h = solver.stride(step);
        let shrink = (-h).exp() - 1.0;
        Self {
            h,
            sample: after.noise / now.noise,
            picture: after.signal * shrink,
            slope: after.signal * (shrink / h + 1.0),
            curve: after.signal * ((shrink + h) / (h * h) - 0.5),
        }
    }
}
