//! What has to be in its range, or a job would end in numbers that are none.

use serde_json::Value;

use super::SchedulerConfig;
use crate::{
    LoadError,
    pipeline::ddpm::{MAX_TIMESTEPS, options::Options, sampler::schedule::alphas_cumprod},
};

impl SchedulerConfig {
    pub(super) fn check(&self, options: &Options) -> Result<(), LoadError> {
        let refuse = |key: &str, value: Value, expected: &str| {
            Err(options.unsupported(key, &value, expected))
        };
        let steps = self.num_train_timesteps;
        if !(1..=MAX_TIMESTEPS).contains(&steps) {
            let expected = format!("1 to {MAX_TIMESTEPS} are expected");
            return refuse("num_train_timesteps", steps.into(), &expected);
        }
        self.check_betas(options)?;
        if self.steps_offset >= steps {
            let expected = "it has to be below `num_train_timesteps`";
            return refuse("steps_offset", self.steps_offset.into(), expected);
        }
        self.check_sigmas(options)?;
        if !(1..=3).contains(&self.solver_order) {
            return refuse(
                "solver_order",
                self.solver_order.into(),
                "1 to 3 is expected",
            );
        }
        Ok(())
    }

    fn check_betas(&self, options: &Options) -> Result<(), LoadError> {
        let is_beta = |beta: f64| (0.0..1.0).contains(&beta);
        for (key, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !is_beta(beta) {
                let expected = "0 or more and less than 1 is expected";
                return Err(options.unsupported(key, &beta.into(), expected));
            }
        }
        let steps = self.num_train_timesteps;
        if let Some(betas) = &self.trained_betas
            && betas.len() != steps
        {
            let value = Value::from(format!("a list of {}", betas.len()));
            let expected = format!("{steps} numbers are expected");
            return Err(options.unsupported("trained_betas", &value, expected));
        }
        self.check_alphas(options)
    }

    /// A picture is never whole, and never gone but at the end of a rescaled schedule: samplers divide by both.
    fn check_alphas(&self, options: &Options) -> Result<(), LoadError> {
        let alphas = alphas_cumprod(self);
        let last = alphas.len() - 1;
        let is_sane = |(step, alpha): (usize, &f32)| {
            let is_end = self.rescale_betas_zero_snr && step == last && last > 0;
            (*alpha > 0.0 && *alpha < 1.0) || (is_end && *alpha == 0.0)
        };
        if alphas.iter().enumerate().all(is_sane) {
            return Ok(());
        }
        let (key, value) = match &self.trained_betas {
            Some(betas) => ("trained_betas", format!("a list of {}", betas.len())),
            None => ("beta_end", self.beta_end.to_string()),
        };
        let expected = "with the other numbers of the schedule, a time step has all or nothing of the picture; \
                        betas above 0, and small enough for `num_train_timesteps`, are expected";
        Err(options.unsupported(key, &value.into(), expected))
    }

    fn check_sigmas(&self, options: &Options) -> Result<(), LoadError> {
        let is_level = |sigma: f64| (sigma as f32).is_normal() && sigma > 0.0;
        for (key, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma.filter(|sigma| !is_level(*sigma)) {
                return Err(options.unsupported(key, &sigma.into(), "more than 0 is expected"));
            }
        }
        match (self.sigma_min, self.sigma_max) {
            (Some(least), Some(most)) if least >= most => {
                let expected = format!("less than `sigma_max`, {most}, is expected");
                Err(options.unsupported("sigma_min", &least.into(), expected))
            }
            _ => Ok(()),
        }
    }
}
