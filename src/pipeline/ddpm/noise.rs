//! Noise from a seed: the same on every platform and device.
//!
//! Sample `k` of a batch draws from ChaCha8 (8 rounds) with the seed's little-endian bytes as the first
//! eight of the key, zeros as the rest, and `k` as the stream. Two 53-bit numbers become two normal
//! values by Box and Muller (1958), in f64. So a sample does not depend on the size of its batch.

use libm::{cos, log, sin, sqrt};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Draws noise for a batch.
pub(super) struct Noise {
    samples: Vec<Normal>,
    /// Numbers in one sample.
    size: usize,
}

impl Noise {
    /// Bytes that a sample takes, besides what is drawn.
    pub(super) const STATE: u64 = size_of::<Normal>() as u64;

    /// Noise for the shape `(batch, channels, height, width)`.
    pub(super) fn new(seed: u64, [batch, channels, height, width]: [usize; 4]) -> Self {
        let samples = (0..batch)
            .map(|sample| Normal::new(seed, sample as u64))
            .collect();
        Self {
            samples,
            size: channels * height * width,
        }
    }

    /// Draws the next noise for the whole batch.
    pub(super) fn draw(&mut self) -> Vec<f32> {
        let size = self.size;
        self.samples
            .iter_mut()
            .flat_map(|normal| (0..size).map(|_| normal.next() as f32))
            .collect()
    }
}

/// Normal values of one sample.
struct Normal {
    random: ChaCha8Rng,
    second: Option<f64>,
}

impl Normal {
    fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(stream);
        Self {
            random,
            second: None,
        }
    }

    fn next(&mut self) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        // 0 < u <= 1, so that its logarithm is finite.
        let radius = sqrt(-2.0 * log(1.0 - self.uniform()));
        let angle = std::f64::consts::TAU * self.uniform();
        self.second = Some(radius * sin(angle));
        radius * cos(angle)
    }

    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_of_a_seed_never_change() {
        let values = Noise::new(7, [1, 1, 1, 6]).draw();
        assert_eq!(values, GOLDEN);
    }

    const GOLDEN: [f32; 6] = [
        -1.6608613,
        0.3609865,
        -0.033841487,
        0.10117364,
        -0.5117388,
        0.8450175,
    ];

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let mut alone = Noise::new(3, [1, 2, 2, 2]);
        let mut first_of_three = Noise::new(3, [3, 2, 2, 2]);
        for _ in 0..2 {
            assert_eq!(alone.draw(), first_of_three.draw()[..8]);
        }
        let both = Noise::new(3, [2, 2, 2, 2]).draw();
        assert_ne!(both[..8], both[8..]);
    }

    #[test]
    fn values_are_normal() {
        let values = Noise::new(1, [1, 1, 200, 500]).draw();
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let variance = values
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / values.len() as f64;
        assert!(
            mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02,
            "mean {mean}, variance {variance}"
        );
    }
}
