//! The configuration of a diffusers scheduler.

use bevy::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::super::options::Options;
use crate::{LoadError, ModelFiles};

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
}

/// How a model was trained, and how to sample from it: the keys of diffusers' `DDPMScheduler` and
/// `DDIMScheduler`.
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
    /// Whether predicted pictures are clipped.
    pub clip_sample: bool,
    /// To plus and minus how much.
    pub clip_sample_range: f64,
    /// How steps are spread.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the time steps of [`TimestepSpacing::Leading`].
    pub steps_offset: usize,
    /// Whether the last time step is nothing but noise.
    pub rescale_betas_zero_snr: bool,
    /// Whether DDIM's last step ends without any noise.
    pub set_alpha_to_one: bool,
    /// How much noise DDPM adds.
    pub variance_type: VarianceType,
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
            clip_sample: true,
            clip_sample_range: 1.0,
            timestep_spacing: TimestepSpacing::default(),
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            set_alpha_to_one: true,
            variance_type: VarianceType::default(),
        }
    }
}

impl SchedulerConfig {
    pub(in super::super) fn read(files: &dyn ModelFiles) -> Result<Self, LoadError> {
        let mut options = Options::read(files, "scheduler/scheduler_config.json")?;
        let class: String = options.require(
            "_class_name",
            "`DDPMScheduler` or `DDIMScheduler` is expected",
        )?;
        if !matches!(class.as_str(), "DDPMScheduler" | "DDIMScheduler") {
            let expected = "`DDPMScheduler` or `DDIMScheduler` is expected";
            return Err(options.unsupported("_class_name", &class.into(), expected));
        }
        let config = Self::take(&mut options)?;
        options.finish()?;
        Ok(config)
    }

    fn take(options: &mut Options) -> Result<Self, LoadError> {
        let default = Self::default();
        options.only("thresholding", false)?;
        // They belong to thresholding.
        options.ignore(&["dynamic_thresholding_ratio", "sample_max_value"]);
        let config = Self {
            num_train_timesteps: options
                .take("num_train_timesteps", default.num_train_timesteps)?,
            beta_start: options.take("beta_start", default.beta_start)?,
            beta_end: options.take("beta_end", default.beta_end)?,
            beta_schedule: options.take("beta_schedule", default.beta_schedule)?,
            trained_betas: options.take("trained_betas", None)?,
            prediction_type: options.take("prediction_type", default.prediction_type)?,
            clip_sample: options.take("clip_sample", true)?,
            clip_sample_range: options.take("clip_sample_range", 1.0)?,
            timestep_spacing: options.take("timestep_spacing", default.timestep_spacing)?,
            steps_offset: options.take("steps_offset", 0)?,
            rescale_betas_zero_snr: options.take("rescale_betas_zero_snr", false)?,
            set_alpha_to_one: options.take("set_alpha_to_one", true)?,
            variance_type: options.take("variance_type", default.variance_type)?,
        };
        config.check(options)?;
        Ok(config)
    }

    fn check(&self, options: &Options) -> Result<(), LoadError> {
        let steps = self.num_train_timesteps;
        if !(1..=1_000_000).contains(&steps) {
            return Err(options.unsupported(
                "num_train_timesteps",
                &steps.into(),
                "1 to 1000000 are expected",
            ));
        }
        if self
            .trained_betas
            .as_ref()
            .is_some_and(|betas| betas.len() != steps)
        {
            let expected = format!("one for each of the {steps} time steps is expected");
            return Err(options.unsupported("trained_betas", &Value::from("a list"), expected));
        }
        if self.steps_offset >= steps {
            let value = self.steps_offset.into();
            return Err(options.unsupported(
                "steps_offset",
                &value,
                "it has to be below `num_train_timesteps`",
            ));
        }
        if !self.clip_sample_range.is_finite() || self.clip_sample_range < 0.0 {
            let value = self.clip_sample_range.into();
            return Err(options.unsupported(
                "clip_sample_range",
                &value,
                "a positive number is expected",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    fn read(changes: &[(&str, Value)]) -> Result<SchedulerConfig, LoadError> {
        let mut json = serde_json::json!({ "_class_name": "DDPMScheduler" });
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        let name = "scheduler/scheduler_config.json";
        SchedulerConfig::read(&MemoryFiles::new([(name, json.to_string().into_bytes())]))
    }

    #[test]
    fn names_are_those_of_diffusers() {
        let config = read(&[
            ("beta_schedule", "squaredcos_cap_v2".into()),
            ("prediction_type", "v_prediction".into()),
            ("timestep_spacing", "trailing".into()),
            ("variance_type", "fixed_small_log".into()),
        ])
        .expect("a configuration");
        assert_eq!(config.beta_schedule, BetaSchedule::SquaredcosCapV2);
        assert_eq!(config.prediction_type, PredictionType::VPrediction);
        assert_eq!(config.timestep_spacing, TimestepSpacing::Trailing);
        assert_eq!(config.variance_type, VarianceType::FixedSmallLog);
    }

    #[test]
    fn what_is_not_implemented_is_named_with_its_value() {
        let refused = [
            ("_class_name", "PNDMScheduler".into()),
            ("thresholding", true.into()),
            ("variance_type", "learned_range".into()),
            ("prediction_type", "flow".into()),
            ("num_train_timesteps", 0.into()),
            ("trained_betas", vec![0.1, 0.2].into()),
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
}
