//! Samplers: how the network's predictions take noise to a picture, step by step.
//!
//! They compute on plain numbers, without candle, in the order and the precision of diffusers'
//! schedulers: near the end of a schedule, where little noise is left, f32 and f64 differ visibly.

use std::borrow::Cow;

use bevy::prelude::*;

use crate::InferError;

mod clip;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod euler;
#[cfg(test)]
mod parity;
mod schedule;
mod sigmas;

pub use config::{
    BetaSchedule, Clipping, FinalSigma, PredictionType, SchedulerConfig, SigmaSpacing, SolverType,
    TimestepSpacing, VarianceType,
};
use ddim::Ddim;
use ddpm::Ddpm;
use dpm_solver::DpmSolver;
use euler::Euler;

/// How noise becomes a picture. The default is [`Ddim`](Self::Ddim) without new noise (`eta` 0).
#[derive(Clone, Copy, PartialEq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Sampler {
    /// New noise at each step (Ho et al. 2020, <https://arxiv.org/abs/2006.11239>).
    Ddpm,
    /// No new noise at `eta` 0, as much as DDPM's at 1 (Song et al. 2020,
    /// <https://arxiv.org/abs/2010.02502>).
    Ddim {
        /// How much new noise, 0 to 1. Jobs with any other value end with [`InferError::InvalidRequest`].
        eta: f64,
    },
    /// Euler's method along the noise levels of Karras et al. (2022, <https://arxiv.org/abs/2206.00364>).
    Euler,
    /// DPM-Solver++ with several steps' predictions, two where the model does not say (Lu et al. 2022,
    /// <https://arxiv.org/abs/2211.01095>): good for few steps.
    DpmSolverPlusPlus,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::Ddim { eta: 0.0 }
    }
}

impl Sampler {
    fn check(self) -> Result<(), InferError> {
        match self {
            Self::Ddim { eta } if !(0.0..=1.0).contains(&eta) => {
                let value = format!("{self:?}");
                Err(InferError::invalid_request(
                    "sampler",
                    value,
                    "an eta from 0 to 1",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What the network predicted at a step, `(batch, channels, height, width)` in one run.
pub(super) struct Prediction {
    pub(super) output: Vec<f32>,
    /// The variance, where the network predicts it, too.
    pub(super) variance: Option<Vec<f32>>,
}

/// How much of the picture and how much noise is in the samples at one moment.
#[derive(Clone, Copy, Debug)]
struct Level {
    signal: f32,
    noise: f32,
}

impl Level {
    /// Where so much of the picture's variance is left.
    fn of_alpha(alpha: f32) -> Self {
        Self {
            signal: alpha.sqrt(),
            noise: (1.0 - alpha).sqrt(),
        }
    }

    /// Where noise is so many times as strong as the picture.
    fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let noise = sigma * signal;
        Self { signal, noise }
    }

    /// What the network means: the picture that it sees in one number.
    fn picture(self, prediction: PredictionType, sample: f32, output: f32) -> f32 {
        let Self { signal, noise } = self;
        match prediction {
            PredictionType::Epsilon => (sample - noise * output) / signal,
            PredictionType::Sample => output,
            PredictionType::VPrediction => signal * sample - noise * output,
        }
    }

    /// The noise that it sees there.
    fn noise(self, prediction: PredictionType, sample: f32, output: f32) -> f32 {
        let Self { signal, noise } = self;
        match prediction {
            PredictionType::Epsilon => output,
            PredictionType::Sample => (sample - signal * output) / noise,
            PredictionType::VPrediction => signal * output + noise * sample,
        }
    }
}

/// One way to step from noise to a picture.
trait Method {
    /// The training's time steps that the network is asked at, in their order.
    fn timesteps(&self) -> &[f64];

    /// What is in the samples before a step.
    fn level(&self, step: usize) -> Level;

    /// Takes the samples one step on. `noise` draws new noise, as much as there are samples.
    fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        noise: &mut dyn FnMut() -> Vec<f32>,
    );

    /// How strong the noise is that a job starts from.
    fn start_scale(&self) -> f32 {
        1.0
    }

    /// What samples are multiplied by before a step, so that the network, and a person, can see them.
    fn view_scale(&self, _step: usize) -> f32 {
        1.0
    }
}

fn method(
    config: &SchedulerConfig,
    sampler: Sampler,
    steps: usize,
    row: usize,
) -> Result<Box<dyn Method>, InferError> {
    Ok(match sampler {
        Sampler::Ddpm => Box::new(Ddpm::new(config, steps, row)),
        Sampler::Ddim { eta } => Box::new(Ddim::new(config, eta, steps, row)),
        Sampler::Euler => Box::new(Euler::new(config, steps)),
        Sampler::DpmSolverPlusPlus => Box::new(DpmSolver::new(config, steps, row)?),
    })
}

/// A sampler at work on one job.
pub(super) struct Denoiser {
    method: Box<dyn Method>,
    /// Steps that are left out at the start, where a job starts from a picture.
    skipped: usize,
}

impl Denoiser {
    /// `row` is how many numbers are in one sample, `strength` how much of the way a picture is taken back to noise,
    /// 0 to 1.
    pub(super) fn new(
        config: &SchedulerConfig,
        sampler: Sampler,
        steps: u32,
        row: usize,
        strength: Option<f64>,
    ) -> Result<Self, InferError> {
        let trained = config.num_train_timesteps;
        let count = steps as usize;
        if !(1..=trained).contains(&count) {
            let expected = format!("1 to {trained} steps");
            return Err(InferError::invalid_request("steps", steps, expected));
        }
        sampler.check()?;
        let method = method(config, sampler, count, row)?;
        let is_within = |timestep: &f64| *timestep < trained as f64;
        if !method.timesteps().iter().all(is_within) {
            let expected =
                format!("fewer steps: with its `steps_offset` the first is beyond {trained}");
            return Err(InferError::invalid_request("steps", steps, expected));
        }
        let skipped = match strength {
            Some(strength) => skipped(method.timesteps().len(), strength)?,
            None => 0,
        };
        let sees_nothing = method.level(skipped).signal == 0.0;
        if sees_nothing && config.prediction_type == PredictionType::Epsilon {
            let value = format!("{:?}", config.timestep_spacing);
            let expected = "a spacing without the last time step, in which no picture is left";
            return Err(InferError::invalid_request(
                "timestep_spacing",
                value,
                expected,
            ));
        }
        Ok(Self { method, skipped })
    }

    /// The training's time steps that the network is asked at, in their order.
    pub(super) fn timesteps(&self) -> &[f64] {
        &self.method.timesteps()[self.skipped..]
    }

    /// Makes the samples to start from out of noise, and of pictures where there are some.
    pub(super) fn start(&self, noise: Vec<f32>, pictures: Option<&[f32]>) -> Vec<f32> {
        let Some(pictures) = pictures else {
            let scale = self.method.start_scale();
            return noise.into_iter().map(|noise| noise * scale).collect();
        };
        let level = self.method.level(self.skipped);
        let mixed = pictures.iter().zip(noise);
        mixed
            .map(|(picture, noise)| level.signal * picture + level.noise * noise)
            .collect()
    }

    /// The samples before a step, as the network is to see them.
    pub(super) fn view<'a>(&self, step: usize, samples: &'a [f32]) -> Cow<'a, [f32]> {
        let scale = self.method.view_scale(self.skipped + step);
        if scale == 1.0 {
            Cow::Borrowed(samples)
        } else {
            Cow::Owned(samples.iter().map(|sample| sample * scale).collect())
        }
    }

    /// Takes `samples` one step on, with what the network predicted there.
    pub(super) fn step(
        &mut self,
        step: usize,
        samples: &mut [f32],
        prediction: &Prediction,
        mut noise: impl FnMut() -> Vec<f32>,
    ) {
        self.method
            .step(self.skipped + step, samples, prediction, &mut noise);
    }
}

/// How many of the steps are left out, as diffusers counts them.
fn skipped(steps: usize, strength: f64) -> Result<usize, InferError> {
    let taken = (steps as f64 * strength) as usize;
    if (0.0..=1.0).contains(&strength) && taken > 0 {
        return Ok(steps - taken.min(steps));
    }
    let expected = format!("0 to 1, and at least one of the {steps} steps");
    Err(InferError::invalid_request("strength", strength, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denoiser(
        sampler: Sampler,
        steps: u32,
        strength: Option<f64>,
    ) -> Result<Denoiser, InferError> {
        Denoiser::new(&SchedulerConfig::default(), sampler, steps, 2, strength)
    }

    fn output(output: [f32; 2]) -> Prediction {
        Prediction {
            output: output.into(),
            variance: None,
        }
    }

    #[test]
    fn requests_that_no_schedule_can_serve_are_refused() {
        for steps in [0, 1001] {
            assert!(
                denoiser(Sampler::default(), steps, None).is_err(),
                "{steps}"
            );
        }
        for eta in [1.5, f64::NAN] {
            assert!(denoiser(Sampler::Ddim { eta }, 10, None).is_err(), "{eta}");
        }
        for strength in [-0.1, 0.0, 0.05, 1.1, f64::NAN] {
            let refused = denoiser(Sampler::default(), 10, Some(strength));
            assert!(refused.is_err(), "{strength}");
        }
        assert!(
            denoiser(Sampler::DpmSolverPlusPlus, 1000, None).is_err(),
            "two steps at one noise level"
        );
    }

    #[test]
    fn picture_and_noise_make_the_sample_again() {
        let level = Level::of_alpha(0.7);
        for prediction in [
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ] {
            let picture = level.picture(prediction, 0.3, -0.8);
            let noise = level.noise(prediction, 0.3, -0.8);
            let sample = level.signal * picture + level.noise * noise;
            assert!((sample - 0.3).abs() < 1e-6, "{prediction:?}");
        }
    }

    #[test]
    fn one_step_of_ddim_ends_at_the_predicted_picture() {
        let config = SchedulerConfig {
            prediction_type: PredictionType::Sample,
            ..Default::default()
        };
        let mut denoiser =
            Denoiser::new(&config, Sampler::default(), 1, 2, None).expect("one step");
        let mut samples = [0.4, -0.2];
        denoiser.step(0, &mut samples, &output([0.5, 3.0]), || {
            unreachable!("no noise")
        });
        assert_eq!(samples, [0.5, 1.0], "clipped to what a picture can be");
    }

    #[test]
    fn a_picture_skips_the_first_steps_and_gets_less_noise() {
        for sampler in [
            Sampler::Ddpm,
            Sampler::default(),
            Sampler::DpmSolverPlusPlus,
        ] {
            let whole = denoiser(sampler, 10, Some(1.0)).expect("a job");
            let part = denoiser(sampler, 10, Some(0.35)).expect("a job");
            assert_eq!(whole.timesteps().len(), 10);
            assert_eq!(part.timesteps(), &whole.timesteps()[7..]);
            let noise = |denoiser: &Denoiser| denoiser.start(vec![1.0], Some(&[0.0]))[0];
            assert!(noise(&part) < noise(&whole), "{sampler:?}");
        }
    }

    #[test]
    fn steps_are_counted_as_python_counts_them() {
        for (strength, taken) in [(0.7, 7), (0.9, 9), (0.35, 3), (1.0, 10)] {
            assert_eq!(skipped(10, strength).ok(), Some(10 - taken), "{strength}");
        }
    }

    #[test]
    fn a_step_that_sees_nothing_of_the_picture_is_refused() {
        let config = SchedulerConfig {
            rescale_betas_zero_snr: true,
            timestep_spacing: Some(TimestepSpacing::Trailing),
            ..Default::default()
        };
        for sampler in [Sampler::Ddpm, Sampler::default()] {
            let refused = Denoiser::new(&config, sampler, 10, 2, None);
            assert!(refused.is_err(), "{sampler:?}");
        }
        assert!(Denoiser::new(&config, Sampler::Euler, 10, 2, None).is_ok());
    }

    #[test]
    fn what_euler_shows_is_no_brighter_than_others() {
        let euler = denoiser(Sampler::Euler, 10, None).expect("a job");
        let start = euler.start(vec![1.0, -1.0], None);
        assert!(start[0] > 10.0, "its noise is strong");
        assert!((euler.view(0, &start)[0] - 1.0).abs() < 0.01);
    }
}
