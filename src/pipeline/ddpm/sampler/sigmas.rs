//! The noise levels of Euler and DPM-Solver++, and the time steps that belong to them.

use super::{
    BetaSchedule, FinalSigma, PredictionType, SchedulerConfig, SigmaSpacing, TimestepSpacing,
    schedule::{alphas_cumprod, trailing},
};

/// What is left of the picture where a rescaled schedule leaves nothing: so that the first noise level is a number.
const LEAST_ALPHA: f32 = 1.0 / (1 << 24) as f32;

/// The exponent of Karras et al. 2022.
const RHO: f64 = 7.0;

/// The steps of one job.
pub(super) struct Sigmas {
    pub(super) timesteps: Vec<f64>,
    /// How many times as strong as the picture noise is, before each step and after the last.
    pub(super) levels: Vec<f32>,
}

/// Euler's own way is to ask both ends.
pub(super) fn euler_spacing(config: &SchedulerConfig) -> TimestepSpacing {
    config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace)
}

impl Sigmas {
    pub(super) fn for_euler(config: &SchedulerConfig, steps: usize) -> Self {
        let trained = Trained::new(config);
        let mut timesteps = euler_timesteps(config, steps);
        let mut levels: Vec<f64> = timesteps.iter().map(|step| trained.at(*step)).collect();
        if config.log_linear {
            levels = trained.log_linear(steps);
        }
        let largest = config.sigma_max.unwrap_or(levels[0]);
        let least = config.sigma_min.unwrap_or(levels[levels.len() - 1]);
        if let Some(spaced) = spaced(config.sigma_spacing, largest, least, steps) {
            levels = spaced;
            timesteps = levels
                .iter()
                .map(|level| trained.timestep(*level))
                .collect();
        }
        let mut levels: Vec<f32> = levels.into_iter().map(|level| level as f32).collect();
        levels.push(trained.last(config));
        let is_continuous =
            config.continuous_timesteps && config.prediction_type == PredictionType::VPrediction;
        if is_continuous {
            let levels = levels[..levels.len() - 1].iter();
            timesteps = levels.map(|level| f64::from(0.25 * level.ln())).collect();
        }
        // diffusers hands them to the network in f32.
        let timesteps = timesteps.into_iter().map(|step| f64::from(step as f32));
        Self {
            timesteps: timesteps.collect(),
            levels,
        }
    }

    pub(super) fn for_solver(config: &SchedulerConfig, steps: usize) -> Self {
        let trained = Trained::new(config);
        let (largest, least) = (trained.largest(), trained.least());
        let (mut timesteps, levels) = match config.sigma_spacing {
            SigmaSpacing::Lu => spaced(SigmaSpacing::Exponential, largest, least, steps),
            spacing => spaced(spacing, largest, least, steps),
        }
        .map_or_else(
            || {
                let timesteps = solver_timesteps(config, &trained, steps);
                let levels = timesteps.iter().map(|step| trained.at(*step)).collect();
                (timesteps, levels)
            },
            |levels| {
                let timesteps = levels
                    .iter()
                    .map(|level| trained.timestep(*level))
                    .collect();
                (timesteps, levels)
            },
        );
        let rounds = matches!(
            config.sigma_spacing,
            SigmaSpacing::Karras | SigmaSpacing::Lu
        ) && config.beta_schedule != BetaSchedule::SquaredcosCapV2;
        for timestep in &mut timesteps {
            // Whole time steps, as diffusers cuts them off.
            *timestep = if rounds {
                timestep.round_ties_even()
            } else {
                timestep.trunc()
            };
        }
        let mut levels: Vec<f32> = levels.into_iter().map(|level: f64| level as f32).collect();
        levels.push(trained.last(config));
        Self { timesteps, levels }
    }
}

/// The noise levels of the training, one for each time step, and their logarithms.
struct Trained {
    levels: Vec<f32>,
    logs: Vec<f32>,
}

impl Trained {
    fn new(config: &SchedulerConfig) -> Self {
        let mut alphas = alphas_cumprod(config);
        if let (true, Some(last)) = (config.rescale_betas_zero_snr, alphas.last_mut()) {
            *last = LEAST_ALPHA;
        }
        let level = |alpha: f32| ((1.0 - alpha) / alpha).sqrt();
        let levels: Vec<f32> = alphas.into_iter().map(level).collect();
        let logs = levels.iter().copied().map(rounded_ln).collect();
        Self { levels, logs }
    }

    fn least(&self) -> f64 {
        self.levels[0].into()
    }

    fn largest(&self) -> f64 {
        self.levels[self.levels.len() - 1].into()
    }

    /// Where the last step ends.
    fn last(&self, config: &SchedulerConfig) -> f32 {
        match config.final_sigma {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => self.levels[0],
        }
    }

    /// Between two time steps, in proportion.
    fn at(&self, timestep: f64) -> f64 {
        let last = self.levels.len() - 1;
        let below = timestep.max(0.0).floor() as usize;
        if below >= last {
            return self.levels[last].into();
        }
        let (low, high) = (
            f64::from(self.levels[below]),
            f64::from(self.levels[below + 1]),
        );
        (high - low) * (timestep - below as f64) + low
    }

    /// The time step of a noise level, between two in proportion of the logarithms.
    fn timestep(&self, level: f64) -> f64 {
        let log = level.max(1e-10).ln();
        let log_at = |step: usize| f64::from(self.logs[step]);
        let reached = self.logs.partition_point(|at| f64::from(*at) <= log);
        let most = self.logs.len().saturating_sub(2);
        let low = reached.saturating_sub(1).min(most);
        let high = (low + 1).min(self.logs.len() - 1);
        if low == high {
            return low as f64;
        }
        let part = ((log_at(low) - log) / (log_at(low) - log_at(high))).clamp(0.0, 1.0);
        (1.0 - part) * low as f64 + part * high as f64
    }

    /// Even strides of the logarithm, in f32 and with one more than there are steps, as diffusers has it.
    fn log_linear(&self, steps: usize) -> Vec<f64> {
        let (start, end) = (
            rounded_ln(self.levels[self.levels.len() - 1]),
            rounded_ln(self.levels[0]),
        );
        let logs = super::schedule::linspace(start, end, steps + 1);
        logs.into_iter().map(|log| f64::from(log.exp())).collect()
    }
}

/// The logarithm, correctly rounded: where it is cut off later, one unit more or less is a whole time step.
fn rounded_ln(level: f32) -> f32 {
    f64::from(level).ln() as f32
}

/// Noise levels of their own, where the spacing has some.
fn spaced(spacing: SigmaSpacing, largest: f64, least: f64, steps: usize) -> Option<Vec<f64>> {
    let part = |step: usize| step as f64 / steps.saturating_sub(1).max(1) as f64;
    let level: Box<dyn Fn(f64) -> f64> = match spacing {
        SigmaSpacing::Karras => {
            let (high, low) = (largest.powf(1.0 / RHO), least.powf(1.0 / RHO));
            Box::new(move |part| (high + part * (low - high)).powf(RHO))
        }
        SigmaSpacing::Exponential => {
            let (high, low) = (largest.ln(), least.ln());
            Box::new(move |part| (high + part * (low - high)).exp())
        }
        SigmaSpacing::Timesteps | SigmaSpacing::Lu => return None,
    };
    Some((0..steps).map(|step| level(part(step))).collect())
}

/// Time steps that may lie between two.
fn euler_timesteps(config: &SchedulerConfig, steps: usize) -> Vec<f64> {
    let trained = config.num_train_timesteps;
    match euler_spacing(config) {
        TimestepSpacing::Linspace => {
            let stride = (trained - 1) as f64 / (steps.max(2) - 1) as f64;
            let at = |step: usize| f64::from((step as f64 * stride) as f32);
            (0..steps).rev().map(at).collect()
        }
        TimestepSpacing::Leading => {
            let at = |step: usize| (step * (trained / steps) + config.steps_offset) as f64;
            (0..steps).rev().map(at).collect()
        }
        TimestepSpacing::Trailing => trailing(trained, trained as f64 / steps as f64),
    }
}

/// Whole time steps, without those that are nearly nothing but noise where the model says so.
fn solver_timesteps(config: &SchedulerConfig, trained: &Trained, steps: usize) -> Vec<f64> {
    let count = config.num_train_timesteps;
    let clipped = trained.logs.iter().rev();
    let clipped = clipped.take_while(|log| -f64::from(**log) < config.lambda_min_clipped);
    let last = count - clipped.count();
    match config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace) {
        TimestepSpacing::Linspace => {
            let stride = (last.max(1) - 1) as f64 / steps as f64;
            let at = |step: usize| (step as f64 * stride).round_ties_even();
            (1..=steps).rev().map(at).collect()
        }
        TimestepSpacing::Leading => {
            let at = |step: usize| (step * (last / (steps + 1)) + config.steps_offset) as f64;
            (1..=steps).rev().map(at).collect()
        }
        TimestepSpacing::Trailing => trailing(last, count as f64 / steps as f64),
    }
}
