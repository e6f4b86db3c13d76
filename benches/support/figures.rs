//! What a bench prints, and the bars that it has to hold.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{process::ExitCode, time::Duration};

/// Prints `name value` lines, and remembers which bars do not hold.
#[derive(Default)]
pub struct Figures {
    missed: Vec<String>,
}

impl Figures {
    /// Prints a figure without a bar.
    pub fn print(&self, name: &str, value: f64) {
        println!("{name} {value:.3}");
    }

    /// Prints a figure that must not be above `bar`.
    pub fn at_most(&mut self, name: &str, value: f64, bar: f64) {
        self.hold(name, value, value <= bar, &format!("at most {bar}"));
    }

    /// Prints a figure that must not be below `bar`.
    pub fn at_least(&mut self, name: &str, value: f64, bar: f64) {
        self.hold(name, value, value >= bar, &format!("at least {bar}"));
    }

    /// Says why there is no figure.
    pub fn not_measured(&self, name: &str, why: &str) {
        println!("{name} not_measured ({why})");
    }

    fn hold(&mut self, name: &str, value: f64, holds: bool, bar: &str) {
        self.print(name, value);
        if !holds {
            self.missed.push(format!("{name} is {value:.3}, not {bar}"));
        }
    }

    /// Fails where a bar does not hold.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        for missed in &self.missed {
            println!("missed: {missed}");
        }
        if self.missed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Returns the value in the middle.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Returns the largest value.
pub fn worst(samples: &[f64]) -> f64 {
    quantile(samples, 1.0)
}

/// Returns the smallest sample that a part of all samples, 0 to 1, does not exceed.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Microseconds.
pub fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
