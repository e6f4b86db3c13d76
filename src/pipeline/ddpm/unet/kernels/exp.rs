//! The exponential function, in a form that compilers make vector instructions of.

use std::f32::consts::LOG2_E;

/// Added and taken away again, it rounds to a whole number.
const ROUND: f32 = 12_582_912.0;

/// What is left of ln 2 where its first digits are taken off.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;

/// e to the power of `x`, to one unit in the last place; of what is out of range: the largest, or nearly 0.
#[inline(always)]
pub(in super::super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let whole = x * LOG2_E + ROUND;
    let power = f32::from_bits((whole.to_bits() << 23).wrapping_add(0x3f80_0000));
    let whole = whole - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let series = 1.987_569_1e-4;
    let series = series * rest + 1.398_199_9e-3;
    let series = series * rest + 8.333_452e-3;
    let series = series * rest + 4.166_579_6e-2;
    let series = series * rest + 1.666_666_5e-1;
    let series = series * rest + 0.5;
    (series * rest * rest + rest + 1.0) * power
}

/// `x` times the logistic function of it.
#[inline(always)]
pub(in super::super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_exact_as_its_numbers() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(error < 1e-7, "{x}: {error}");
        }
    }

    #[test]
    fn what_is_out_of_range_stays_a_number() {
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(-1e30) < 1e-37);
        assert!(silu(-1e4).abs() < 1e-30);
        assert!((silu(1e4) - 1e4).abs() < 1e-2);
        assert!(silu(f32::NAN).is_nan());
    }
}
