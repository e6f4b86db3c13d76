//! Samplers: how the network's predictions take noise to a picture, step by step.
//!
//! They compute on plain numbers, without candle, in the order and the precision of diffusers'
//! schedulers: near the end of a schedule, where little noise is left, f32 and f64 differ visibly.

use bevy::prelude::*;

use crate::InferError;

mod config;
mod ddim;
mod ddpm;
mod schedule;

pub use config::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing, VarianceType};
use schedule::{alphas_cumprod, timesteps};

/// How noise becomes a picture.
#[derive(Clone, Copy, PartialEq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Sampler {
    /// New noise at each step (Ho et al. 2020, <https://arxiv.org/abs/2006.11239>).
    Ddpm,
    /// No new noise at `eta` 0, as much as DDPM's at 1 (Song et al. 2020,
    /// <https://arxiv.org/abs/2010.02502>).
    Ddim {
        /// How much new noise, 0 to 1.
        eta: f64,
    },
    /// Euler's method. Not implemented yet: a job that asks for it ends with
    /// [`InferError::InvalidRequest`].
    Euler,
    /// DPM-Solver++ of second order. Not implemented yet: a job that asks for it ends with
    /// [`InferError::InvalidRequest`].
    DpmSolverPlusPlus,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::Ddim { eta: 0.0 }
    }
}

impl Sampler {
    fn check(self) -> Result<(), InferError> {
        let expected = match self {
            Self::Ddpm => return Ok(()),
            Self::Ddim { eta } if (0.0..=1.0).contains(&eta) => return Ok(()),
            Self::Ddim { .. } => "an eta from 0 to 1",
            Self::Euler | Self::DpmSolverPlusPlus => "`Ddpm` or `Ddim`: others are not implemented",
        };
        Err(InferError::invalid_request(
            "sampler",
            format!("{self:?}"),
            expected,
        ))
    }
}

/// A sampler at work on one job.
pub(super) struct Denoiser {
    config: SchedulerConfig,
    sampler: Sampler,
    steps: u32,
    timesteps: Vec<usize>,
    alphas: Vec<f32>,
}

/// What a step leaves of the noise schedule: the signal's part before and after it.
#[derive(Clone, Copy, Debug)]
struct Alphas {
    now: f32,
    after: f32,
}

impl Denoiser {
    pub(super) fn new(
        config: &SchedulerConfig,
        sampler: Sampler,
        steps: u32,
    ) -> Result<Self, InferError> {
        let trained = config.num_train_timesteps;
        let timesteps = match steps as usize {
            count if (1..=trained).contains(&count) => timesteps(config, count),
            _ => {
                return Err(InferError::invalid_request(
                    "steps",
                    steps,
                    format!("1 to {trained} steps"),
                ));
            }
        };
        if timesteps.iter().any(|timestep| *timestep >= trained) {
            let expected =
                format!("fewer steps: with its `steps_offset` the first is beyond {trained}");
            return Err(InferError::invalid_request("steps", steps, expected));
        }
        sampler.check()?;
        let (alphas, config) = (alphas_cumprod(config), config.clone());
        Ok(Self {
            timesteps,
            alphas,
            config,
            sampler,
            steps,
        })
    }

    /// The training's time steps that the network is asked at, in their order.
    pub(super) fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// Takes `samples` one step on, with what the network predicted there.
    pub(super) fn step(
        &mut self,
        index: usize,
        samples: &mut [f32],
        output: &[f32],
        noise: impl FnOnce() -> Vec<f32>,
    ) {
        match self.sampler {
            Sampler::Ddim { eta } => {
                let alphas = self.evenly_after(index);
                ddim::step(&self.config, alphas, eta, samples, output, noise);
            }
            _ => {
                let (alphas, is_last) = self.next_after(index);
                ddpm::step(&self.config, alphas, is_last, samples, output, noise);
            }
        }
    }

    /// DDIM looks one even stride further.
    fn evenly_after(&self, index: usize) -> Alphas {
        let now = self.timesteps[index];
        let stride = self.config.num_train_timesteps / self.steps as usize;
        let last = if self.config.set_alpha_to_one {
            1.0
        } else {
            self.alphas[0]
        };
        let after = now
            .checked_sub(stride)
            .map_or(last, |after| self.alphas[after]);
        Alphas {
            now: self.alphas[now],
            after,
        }
    }

    /// DDPM looks at the time step that comes next. The very last adds no noise.
    fn next_after(&self, index: usize) -> (Alphas, bool) {
        let now = self.timesteps[index];
        let after = self
            .timesteps
            .get(index + 1)
            .map_or(1.0, |after| self.alphas[*after]);
        (
            Alphas {
                now: self.alphas[now],
                after,
            },
            now == 0,
        )
    }
}

/// What the network means: the picture and the noise that it sees in one number.
fn picture_and_noise(
    prediction: PredictionType,
    alpha: f32,
    sample: f32,
    output: f32,
) -> (f32, f32) {
    let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    match prediction {
        PredictionType::Epsilon => ((sample - noise * output) / signal, output),
        PredictionType::Sample => (output, (sample - signal * output) / noise),
        PredictionType::VPrediction => (
            signal * sample - noise * output,
            signal * output + noise * sample,
        ),
    }
}

/// Keeps the predicted picture within the range that pictures have.
fn clip(config: &SchedulerConfig, picture: f32) -> f32 {
    let range = config.clip_sample_range as f32;
    if config.clip_sample {
        picture.clamp(-range, range)
    } else {
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_no_schedule_can_serve_are_refused() {
        let config = SchedulerConfig::default();
        for steps in [0, 1001] {
            assert!(
                Denoiser::new(&config, Sampler::default(), steps).is_err(),
                "{steps} steps"
            );
        }
        for sampler in [
            Sampler::Ddim { eta: 1.5 },
            Sampler::Ddim { eta: f64::NAN },
            Sampler::Euler,
        ] {
            assert!(Denoiser::new(&config, sampler, 10).is_err(), "{sampler:?}");
        }
    }

    #[test]
    fn picture_and_noise_make_the_sample_again() {
        let alpha: f32 = 0.7;
        for prediction in [
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ] {
            let (picture, noise) = picture_and_noise(prediction, alpha, 0.3, -0.8);
            let sample = alpha.sqrt() * picture + (1.0 - alpha).sqrt() * noise;
            assert!((sample - 0.3).abs() < 1e-6, "{prediction:?}");
        }
    }

    #[test]
    fn one_step_of_ddim_ends_at_the_predicted_picture() {
        let config = SchedulerConfig {
            prediction_type: PredictionType::Sample,
            ..Default::default()
        };
        let mut denoiser = Denoiser::new(&config, Sampler::default(), 1).expect("one step");
        let mut samples = [0.4, -0.2];
        denoiser.step(0, &mut samples, &[0.5, 3.0], || unreachable!("no noise"));
        assert_eq!(samples, [0.5, 1.0], "clipped to what a picture can be");
    }

    /// Every step of 423 configurations, as diffusers computed them from the same outputs and noise.
    #[test]
    fn every_step_is_that_of_diffusers() {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let cases = std::fs::read(fixtures.join("schedulers.json")).expect("the fixture");
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).expect("a list");
        let tensors = candle_core::safetensors::load(
            fixtures.join("schedulers.safetensors"),
            &candle_core::Device::Cpu,
        )
        .expect("the fixture");
        let rows = |name: &str| tensors[name].to_vec2::<f32>().expect("rows");
        let (outputs, noises) = (rows("outputs"), rows("noises"));
        let expected = tensors["expected"].to_vec3::<f32>().expect("rows of rows");
        for (case, expected) in cases.iter().zip(&expected) {
            let name = "scheduler/scheduler_config.json";
            let files = crate::MemoryFiles::new([(name, case.to_string().into_bytes())]);
            let config = SchedulerConfig::read(&files).expect("a configuration");
            let sampler = match case["_class_name"].as_str() {
                Some("DDPMScheduler") => Sampler::Ddpm,
                _ => Sampler::Ddim {
                    eta: case["_eta"].as_f64().expect("a number"),
                },
            };
            let mut denoiser =
                Denoiser::new(&config, sampler, expected.len() as u32).expect("a job");
            assert_eq!(
                serde_json::json!(denoiser.timesteps()),
                case["_timesteps"],
                "{case}"
            );
            let mut samples = tensors["start"].to_vec1::<f32>().expect("a row");
            for (step, expected) in expected.iter().enumerate() {
                denoiser.step(step, &mut samples, &outputs[step], || noises[step].clone());
                let largest = expected
                    .iter()
                    .fold(0_f32, |largest, value| largest.max(value.abs()));
                for (ours, theirs) in samples.iter().zip(expected) {
                    assert!(
                        (ours - theirs).abs() <= 1e-5 * largest,
                        "step {step} of {case}: {ours} and {theirs}"
                    );
                }
            }
        }
        assert_eq!((cases.len(), expected.len()), (423, 423));
    }
}
