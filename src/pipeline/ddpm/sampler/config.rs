//! The configuration of a diffusers scheduler.

use bevy::prelude::*;
use serde::Deserialize;

use crate::{LoadError, ModelFiles, pipeline::ddpm::options::Options};

mod check;
mod take;

/// How noise is spread over the training's time steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// From `beta_start` to `beta_end` in equal strides.
    #[default]
    Linear,
    /// The square of equal strides.
    ScaledLinear,
    /// Nichol and Dhariwal's cosine (2021, <https://arxiv.org/abs/2102.09672>).
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
    /// GeoDiff's sigmoid.
    Sigmoid,
    /// Laplace's.
    Laplace,
}

/// What the network was trained to predict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// The picture.
    Sample,
    /// The velocity (Salimans and Ho 2022, <https://arxiv.org/abs/2202.00512>).
    VPrediction,
}

/// How a few steps are spread over the training's many (Lin et al. 2023, table 2,
/// <https://arxiv.org/abs/2305.08891>).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[reflect(Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Both ends are asked.
    Linspace,
    /// The first is asked, the last is not.
    #[default]
    Leading,
    /// The last is asked, the first is not: good for few steps.
    Trailing,
}

/// How much noise DDPM adds at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VarianceType {
    /// The posterior's variance.
    #[default]
    FixedSmall,
    /// The same, by way of its logarithm.
    FixedSmallLog,
    /// The step's beta.
    FixedLarge,
    /// The network predicts it. Other samplers than DDPM do without.
    Learned,
    /// The network predicts where it lies between the posterior's and the step's beta (Nichol and Dhariwal 2021,
    /// <https://arxiv.org/abs/2102.09672>). Other samplers than DDPM do without.
    LearnedRange,
}

impl VarianceType {
    pub(in super::super) fn is_learned(self) -> bool {
        matches!(self, Self::Learned | Self::LearnedRange)
    }
}

/// How predicted pictures are kept within the range that pictures have.
#[derive(Clone, Copy, PartialEq, Debug, Reflect)]
#[non_exhaustive]
pub enum Clipping {
    /// They are not.
    None,
    /// To plus and minus so much.
    Range(f64),
    /// To what so many of a picture's numbers keep to, 0 to 1, and at most to `max`; then scaled down (Saharia et al.
    /// 2022, <https://arxiv.org/abs/2205.11487>).
    Dynamic {
        /// The part of the numbers.
        ratio: f64,
        /// The largest range.
        max: f64,
    },
}

/// How the noise levels of Euler and DPM-Solver++ are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[non_exhaustive]
pub enum SigmaSpacing {
    /// As the time steps are.
    #[default]
    Timesteps,
    /// As Karras et al. spread them (2022, <https://arxiv.org/abs/2206.00364>).
    Karras,
    /// In equal strides of their logarithms.
    Exponential,
    /// In equal strides of their logarithms, for DPM-Solver++ (Lu et al. 2022, <https://arxiv.org/abs/2211.01095>).
    Lu,
}

/// The noise level that the last step of Euler and DPM-Solver++ ends at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinalSigma {
    /// None.
    #[default]
    Zero,
    /// That of the first time step.
    SigmaMin,
}

/// How DPM-Solver++ steps with what it remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Reflect)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SolverType {
    /// By the middle.
    #[default]
    Midpoint,
    /// By both ends.
    Heun,
}

/// How a model was trained, and how to sample from it: the keys of diffusers' `DDPMScheduler`, `DDIMScheduler`,
/// `EulerDiscreteScheduler` and `DPMSolverMultistepScheduler`. Any sampler can be used with any of them.
#[derive(Clone, Debug, Reflect)]
#[non_exhaustive]
pub struct SchedulerConfig {
    /// Time steps of the training.
    pub num_train_timesteps: usize,
    /// The least noise of a step.
    pub beta_start: f64,
    /// The most noise of a step.
    pub beta_end: f64,
    /// How it grows.
    pub beta_schedule: BetaSchedule,
    /// The noise of each step, instead of a schedule.
    pub trained_betas: Option<Vec<f32>>,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How predicted pictures are clipped; Euler does not, and DPM-Solver++ only dynamically.
    pub clipping: Clipping,
    /// How steps are spread; [`None`] is each sampler's own way.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to the time steps of [`TimestepSpacing::Leading`].
    pub steps_offset: usize,
    /// Whether the last time step is nothing but noise.
    pub rescale_betas_zero_snr: bool,
    /// Whether DDIM's last step ends without any noise.
    pub set_alpha_to_one: bool,
    /// How much noise DDPM adds.
    pub variance_type: VarianceType,
    /// How noise levels are spread.
    pub sigma_spacing: SigmaSpacing,
    /// The noise level that the last step ends at.
    pub final_sigma: FinalSigma,
    /// The least noise level of Euler's spacings, where it is not the schedule's.
    pub sigma_min: Option<f64>,
    /// The largest noise level of Euler's spacings, where it is not the schedule's.
    pub sigma_max: Option<f64>,
    /// Whether Euler spreads the logarithms of noise levels evenly.
    pub log_linear: bool,
    /// Whether Euler tells a network that predicts velocities the noise level itself.
    pub continuous_timesteps: bool,
    /// How many predictions DPM-Solver++ uses, 1 to 3.
    pub solver_order: usize,
    /// How it uses them.
    pub solver_type: SolverType,
    /// Whether the last of fewer than 15 steps use fewer.
    pub lower_order_final: bool,
    /// Whether the last step uses one.
    pub euler_at_final: bool,
    /// Leaves out time steps with more noise than that, for the cosine schedule; a logarithm.
    pub lambda_min_clipped: f64,
}

impl Default for SchedulerConfig {
    /// diffusers' defaults.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::default(),
            trained_betas: None,
            prediction_type: PredictionType::default(),
            clipping: Clipping::Range(1.0),
            timestep_spacing: None,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            set_alpha_to_one: true,
            variance_type: VarianceType::default(),
            sigma_spacing: SigmaSpacing::default(),
            final_sigma: FinalSigma::default(),
            sigma_min: None,
            sigma_max: None,
            log_linear: false,
            continuous_timesteps: false,
            solver_order: 2,
            solver_type: SolverType::default(),
            lower_order_final: true,
            euler_at_final: false,
            lambda_min_clipped: f64::NEG_INFINITY,
        }
    }
}

impl SchedulerConfig {
    pub(in super::super) fn read(files: &dyn ModelFiles, file: &str) -> Result<Self, LoadError> {
        let mut options = Options::read(files, file)?;
        let config = Self::take(&mut options)?;
        options.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::MemoryFiles;

    fn parse(json: &str) -> Result<SchedulerConfig, LoadError> {
        let files = MemoryFiles::new([("s.json", json.as_bytes().to_vec())]);
        SchedulerConfig::read(&files, "s.json")
    }

    fn read(changes: &[(&str, Value)]) -> Result<SchedulerConfig, LoadError> {
        let mut json = serde_json::json!({ "_class_name": "DDPMScheduler" });
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        parse(&json.to_string())
    }

    #[test]
    fn names_are_those_of_diffusers() {
        let config = read(&[
            ("beta_schedule", "squaredcos_cap_v2".into()),
            ("prediction_type", "v_prediction".into()),
            ("timestep_spacing", "trailing".into()),
            ("variance_type", "fixed_small_log".into()),
            ("thresholding", true.into()),
            ("use_karras_sigmas", true.into()),
            ("solver_type", "heun".into()),
        ])
        .expect("a configuration");
        assert_eq!(config.beta_schedule, BetaSchedule::SquaredcosCapV2);
        assert_eq!(config.prediction_type, PredictionType::VPrediction);
        assert_eq!(config.timestep_spacing, Some(TimestepSpacing::Trailing));
        assert_eq!(config.variance_type, VarianceType::FixedSmallLog);
        let (ratio, max) = (0.995, 1.0);
        assert_eq!(config.clipping, Clipping::Dynamic { ratio, max });
        assert_eq!(config.sigma_spacing, SigmaSpacing::Karras);
        assert_eq!(config.solver_type, SolverType::Heun);
    }

    #[test]
    fn a_number_that_only_python_writes_is_read() {
        let config = parse(
            r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}"#,
        );
        let config = config.expect("diffusers writes this");
        assert_eq!(config.lambda_min_clipped, f64::NEG_INFINITY);
        let clipped = read(&[("lambda_min_clipped", (-5.1).into())]).expect("a configuration");
        assert_eq!(clipped.lambda_min_clipped, -5.1);
    }

    #[test]
    fn what_is_not_implemented_is_named_with_its_value() {
        let refused = [
            ("_class_name", "PNDMScheduler".into()),
            ("variance_type", "fixed_large_log".into()),
            ("prediction_type", "flow".into()),
            ("num_train_timesteps", 0.into()),
            ("trained_betas", vec![0.1, 0.2].into()),
            ("beta_start", (-0.1).into()),
            ("beta_end", 1.0.into()),
            ("beta_end", 0.9.into()),
            ("sigma_max", 1e300.into()),
            ("clip_sample_range", (-1).into()),
            ("sample_max_value", 0.5.into()),
            ("dynamic_thresholding_ratio", 1.5.into()),
            ("use_beta_sigmas", true.into()),
            ("use_flow_sigmas", true.into()),
            ("algorithm_type", "sde-dpmsolver++".into()),
            ("solver_order", 4.into()),
            ("sigma_min", 0.into()),
            ("interpolation_type", "cubic".into()),
            ("timestep_type", "other".into()),
            ("steps_offset", 1000.into()),
            ("brand_new_key", 1.into()),
        ];
        for (key, value) in refused {
            let error = read(&[(key, value)]).expect_err(key);
            assert!(
                matches!(&error, LoadError::UnsupportedOption { key: found, .. } if found == key),
                "{error}"
            );
        }
    }

    #[test]
    fn only_one_spacing_of_noise_levels_can_be_asked_for() {
        let both = [
            ("use_karras_sigmas", true.into()),
            ("use_exponential_sigmas", true.into()),
        ];
        assert!(read(&both).is_err());
    }
}
