//! The noise schedule of the training, and the time steps of a job.

use std::f64::consts::FRAC_PI_2;

use super::{BetaSchedule, SchedulerConfig, TimestepSpacing};

/// How much of the picture is left at each time step of the training.
///
/// Rounded to f32 where diffusers rounds, so that both start from the same numbers.
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Vec<f32> {
    let betas = betas(config);
    let alphas = betas.iter().map(|beta| 1.0 - beta);
    let alphas: Vec<f32> = if config.rescale_betas_zero_snr {
        without_signal_at_the_end(&cumprod(alphas))
    } else {
        alphas.collect()
    };
    cumprod(alphas)
}

/// The product so far, rounded to f32 at each place as torch does it.
fn cumprod(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0;
    let next = |value: f32| {
        product *= f64::from(value);
        product as f32
    };
    values.into_iter().map(next).collect()
}

fn betas(config: &SchedulerConfig) -> Vec<f32> {
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let (start, end, steps) = (
        config.beta_start,
        config.beta_end,
        config.num_train_timesteps,
    );
    match config.beta_schedule {
        BetaSchedule::Linear => linspace(start as f32, end as f32, steps),
        BetaSchedule::ScaledLinear => {
            let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, steps);
            roots.into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::Sigmoid => {
            let scale = (end - start) as f32;
            let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
            linspace(-6.0, 6.0, steps)
                .into_iter()
                .map(|x| sigmoid(x) * scale + start as f32)
                .collect()
        }
        BetaSchedule::SquaredcosCapV2 => {
            from_alpha_bar(steps, |t| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2))
        }
        BetaSchedule::Laplace => from_alpha_bar(steps, laplace),
    }
}

/// torch's: from both ends towards the middle.
pub(super) fn linspace(start: f32, end: f32, steps: usize) -> Vec<f32> {
    if steps == 1 {
        return vec![start];
    }
    let stride = (end - start) / (steps - 1) as f32;
    let value = |i: usize| {
        if i < steps / 2 {
            start + stride * i as f32
        } else {
            end - stride * (steps - i - 1) as f32
        }
    };
    (0..steps).map(value).collect()
}

fn from_alpha_bar(steps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |step: usize| alpha_bar(step as f64 / steps as f64);
    (0..steps)
        .map(|step| (1.0 - at(step + 1) / at(step)).min(0.999) as f32)
        .collect()
}

fn laplace(t: f64) -> f64 {
    let log_snr = -0.5 * 1_f64.copysign(0.5 - t) * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
    let snr = log_snr.exp();
    (snr / (1.0 + snr)).sqrt()
}

/// Algorithm 1 of Lin et al. 2023 (<https://arxiv.org/abs/2305.08891>): shifts and scales the roots so
/// that the last is zero and the first stays. Returns the alphas of the single steps.
fn without_signal_at_the_end(cumprod: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumprod.iter().map(|alpha| alpha.sqrt()).collect();
    let (Some(first), Some(last)) = (roots.first().copied(), roots.last().copied()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let bars: Vec<f32> = roots
        .iter()
        .map(|root| ((root - last) * scale).powi(2))
        .collect();
    let single = |i: usize| {
        if i == 0 {
            bars[0]
        } else {
            bars[i] / bars[i - 1]
        }
    };
    // diffusers goes by way of the betas, which rounds once more.
    (0..bars.len()).map(|i| 1.0 - (1.0 - single(i))).collect()
}

/// The time steps of a job, from noise to picture.
pub(super) fn timesteps(config: &SchedulerConfig, steps: usize) -> Vec<usize> {
    let trained = config.num_train_timesteps;
    match config.timestep_spacing.unwrap_or_default() {
        TimestepSpacing::Linspace => {
            let stride = if steps == 1 {
                0.0
            } else {
                (trained - 1) as f64 / (steps - 1) as f64
            };
            (0..steps)
                .rev()
                .map(|step| (step as f64 * stride).round_ties_even() as usize)
                .collect()
        }
        TimestepSpacing::Leading => (0..steps)
            .rev()
            .map(|step| step * (trained / steps) + config.steps_offset)
            .collect(),
        TimestepSpacing::Trailing => trailing(trained, trained as f64 / steps as f64)
            .into_iter()
            .map(|step| step as usize)
            .collect(),
    }
}

/// From `last` down in strides, each one less.
pub(super) fn trailing(last: usize, stride: f64) -> Vec<f64> {
    let count = (last as f64 / stride).ceil() as usize;
    let at = |step: usize| (last as f64 - step as f64 * stride).round_ties_even();
    (0..count).map(|step| (at(step) - 1.0).max(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaced(timestep_spacing: TimestepSpacing, steps: usize) -> Vec<usize> {
        timesteps(
            &SchedulerConfig {
                timestep_spacing: Some(timestep_spacing),
                ..Default::default()
            },
            steps,
        )
    }

    #[test]
    fn spacings_are_those_of_table_2() {
        assert_eq!(spaced(TimestepSpacing::Leading, 4), [750, 500, 250, 0]);
        assert_eq!(spaced(TimestepSpacing::Trailing, 4), [999, 749, 499, 249]);
        assert_eq!(spaced(TimestepSpacing::Linspace, 4), [999, 666, 333, 0]);
        assert_eq!(spaced(TimestepSpacing::Linspace, 1), [0]);
    }

    #[test]
    fn every_schedule_falls_from_one_towards_zero() {
        use BetaSchedule::*;
        for beta_schedule in [Linear, ScaledLinear, SquaredcosCapV2, Sigmoid, Laplace] {
            let alphas = alphas_cumprod(&SchedulerConfig {
                beta_schedule,
                ..Default::default()
            });
            assert_eq!(alphas.len(), 1000);
            assert!(
                alphas.windows(2).all(|pair| pair[0] >= pair[1]),
                "{beta_schedule:?}"
            );
            assert!(
                alphas.iter().all(|alpha| (0.0..=1.0).contains(alpha)),
                "{beta_schedule:?}"
            );
        }
    }

    #[test]
    fn without_signal_at_the_end_the_last_is_nothing_but_noise() {
        let config = SchedulerConfig {
            rescale_betas_zero_snr: true,
            ..Default::default()
        };
        let plain = alphas_cumprod(&SchedulerConfig::default());
        let rescaled = alphas_cumprod(&config);
        assert_eq!(rescaled[999], 0.0);
        assert!((rescaled[0] - plain[0]).abs() < 1e-6);
    }
}
