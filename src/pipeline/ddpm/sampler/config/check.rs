//! What has to be in its range, or a job would end in numbers that are none.

use serde_json::Value;

use super::SchedulerConfig;
use crate::{LoadError, pipeline::ddpm::options::Options};

/// The most time steps of a training.
const MAX_TIMESTEPS: usize = 100_000;

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
        for (key, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma.filter(|sigma| !(sigma.is_normal() && *sigma > 0.0)) {
                return refuse(key, sigma.into(), "more than 0 is expected");
            }
        }
        if !(1..=3).contains(&self.solver_order) {
            return refuse(
                "solver_order",
                self.solver_order.into(),
                "1 to 3 is expected",
            );
        }
        let clipped = self.lambda_min_clipped;
        if clipped.is_nan() || clipped == f64::INFINITY {
            return refuse("lambda_min_clipped", clipped.into(), "a number is expected");
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
        let Some(betas) = &self.trained_betas else {
            return Ok(());
        };
        let steps = self.num_train_timesteps;
        let is_sane = betas.iter().all(|beta| is_beta(f64::from(*beta)));
        if is_sane && betas.len() == steps {
            return Ok(());
        }
        let value = Value::from(format!("a list of {}", betas.len()));
        let expected = format!("{steps} numbers, 0 or more and less than 1, are expected");
        Err(options.unsupported("trained_betas", &value, expected))
    }
}
