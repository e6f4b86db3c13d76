//! Every key of the schedulers that are implemented, with diffusers' defaults.

use serde_json::Value;

use super::{Clipping, SchedulerConfig, SigmaSpacing, VarianceType};
use crate::{LoadError, pipeline::ddpm::options::Options};

/// The schedulers whose configurations are read.
const CLASSES: [&str; 4] = [
    "DDPMScheduler",
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
];

impl SchedulerConfig {
    pub(super) fn take(options: &mut Options) -> Result<Self, LoadError> {
        take_class(options)?;
        refuse_what_is_not_implemented(options)?;
        let default = Self::default();
        let config = Self {
            num_train_timesteps: options
                .take("num_train_timesteps", default.num_train_timesteps)?,
            beta_start: options.take("beta_start", default.beta_start)?,
            beta_end: options.take("beta_end", default.beta_end)?,
            beta_schedule: options.take("beta_schedule", default.beta_schedule)?,
            trained_betas: options.take("trained_betas", None)?,
            prediction_type: options.take("prediction_type", default.prediction_type)?,
            clipping: take_clipping(options)?,
            timestep_spacing: options.take("timestep_spacing", None)?,
            steps_offset: options.take("steps_offset", 0)?,
            rescale_betas_zero_snr: options.take("rescale_betas_zero_snr", false)?,
            set_alpha_to_one: options.take("set_alpha_to_one", true)?,
            variance_type: options
                .take::<Option<VarianceType>>("variance_type", None)?
                .unwrap_or_default(),
            sigma_spacing: take_sigma_spacing(options)?,
            final_sigma: options.take("final_sigmas_type", default.final_sigma)?,
            sigma_min: options.take("sigma_min", None)?,
            sigma_max: options.take("sigma_max", None)?,
            log_linear: take_either(options, "interpolation_type", ["linear", "log_linear"])?,
            continuous_timesteps: take_either(
                options,
                "timestep_type",
                ["discrete", "continuous"],
            )?,
            solver_order: options.take("solver_order", default.solver_order)?,
            solver_type: options.take("solver_type", default.solver_type)?,
            lower_order_final: options.take("lower_order_final", true)?,
            euler_at_final: options.take("euler_at_final", false)?,
            lambda_min_clipped: take_lambda_min(options)?,
        };
        config.check(options)?;
        Ok(config)
    }
}

fn take_class(options: &mut Options) -> Result<(), LoadError> {
    let expected = format!("one of {} is expected", CLASSES.join(", "));
    let class: String = options.require("_class_name", &expected)?;
    if CLASSES.contains(&class.as_str()) {
        Ok(())
    } else {
        Err(options.unsupported("_class_name", &class.into(), expected))
    }
}

fn refuse_what_is_not_implemented(options: &mut Options) -> Result<(), LoadError> {
    options.only("use_beta_sigmas", false)?;
    options.only("use_flow_sigmas", false)?;
    options.only("use_dynamic_shifting", false)?;
    options.only("algorithm_type", "dpmsolver++")?;
    options.only("timestep_values", Value::Null)?;
    // They belong to what was refused just now, to other schedulers, or to the first versions of diffusers.
    options.ignore(&[
        "flow_shift",
        "time_shift_type",
        "skip_prk_steps",
        "tensor_format",
    ]);
    Ok(())
}

fn take_clipping(options: &mut Options) -> Result<Clipping, LoadError> {
    let ratio: f64 = options.take("dynamic_thresholding_ratio", 0.995)?;
    let max: f64 = options.take("sample_max_value", 1.0)?;
    let range: f64 = options.take("clip_sample_range", 1.0)?;
    let clips = options.take("clip_sample", true)?;
    let thresholds = options.take("thresholding", false)?;
    if !(range.is_finite() && range >= 0.0) {
        let expected = "0 or more is expected";
        return Err(options.unsupported("clip_sample_range", &range.into(), expected));
    }
    if !(0.0..=1.0).contains(&ratio) {
        let expected = "0 to 1 is expected";
        return Err(options.unsupported("dynamic_thresholding_ratio", &ratio.into(), expected));
    }
    if !(max.is_finite() && max >= 1.0) {
        let expected = "1 or more is expected";
        return Err(options.unsupported("sample_max_value", &max.into(), expected));
    }
    Ok(match (thresholds, clips) {
        (true, _) => Clipping::Dynamic { ratio, max },
        (false, true) => Clipping::Range(range),
        (false, false) => Clipping::None,
    })
}

fn take_sigma_spacing(options: &mut Options) -> Result<SigmaSpacing, LoadError> {
    let spacings = [
        ("use_karras_sigmas", SigmaSpacing::Karras),
        ("use_exponential_sigmas", SigmaSpacing::Exponential),
        ("use_lu_lambdas", SigmaSpacing::Lu),
    ];
    let mut chosen = SigmaSpacing::Timesteps;
    for (key, spacing) in spacings {
        let asked: Option<bool> = options.take(key, None)?;
        if asked != Some(true) {
            continue;
        }
        if chosen != SigmaSpacing::Timesteps {
            let expected = "only one spacing of noise levels can be asked for";
            return Err(options.unsupported(key, &true.into(), expected));
        }
        chosen = spacing;
    }
    Ok(chosen)
}

/// No limit is `-Infinity` in Python.
fn take_lambda_min(options: &mut Options) -> Result<f64, LoadError> {
    match options.take("lambda_min_clipped", Value::Null)? {
        Value::Null => Ok(f64::NEG_INFINITY),
        Value::String(text) if text == "-Infinity" => Ok(f64::NEG_INFINITY),
        value => value.as_f64().ok_or_else(|| {
            options.unsupported(
                "lambda_min_clipped",
                &value,
                "a number or -Infinity is expected",
            )
        }),
    }
}

/// A text that is one of two: returns whether it is the second. The first is the default.
fn take_either(options: &mut Options, key: &str, names: [&str; 2]) -> Result<bool, LoadError> {
    let name = options.take(key, names[0].to_owned())?;
    match names.iter().position(|known| *known == name) {
        Some(index) => Ok(index == 1),
        None => {
            let expected = format!("`{}` and `{}` are implemented", names[0], names[1]);
            Err(options.unsupported(key, &name.into(), expected))
        }
    }
}
