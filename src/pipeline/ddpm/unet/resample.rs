//! Halving and doubling without weights.

use candle_core::{Result, Tensor};

use super::kernels::{channels_first, channels_last, has_kernels};

/// How a residual block changes the size of what it works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resample {
    /// Halves: each pixel is the mean of four.
    Halve,
    /// Doubles: each pixel becomes four.
    Double,
    /// Halves through a filter.
    HalveSmoothly,
    /// Doubles through a filter.
    DoubleSmoothly,
}

/// The filter along one side, which adds up to 8 (Karras et al. 2020, <https://arxiv.org/abs/1912.04958>).
const FILTER: [f32; 4] = [1.0, 3.0, 3.0, 1.0];

impl Resample {
    /// `hidden` has the shape `(batch, channels, height, width)`.
    pub(super) fn apply(self, hidden: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = hidden.dims4()?;
        match self {
            Self::Halve => hidden.avg_pool2d(2),
            Self::Double if has_kernels(hidden.dtype(), hidden.device()) => double(hidden),
            Self::Double => hidden.upsample_nearest2d(2 * height, 2 * width),
            Self::HalveSmoothly => each_channel(hidden, |planes| {
                planes.conv2d(&filter(planes, 1.0)?, 1, 2, 1, 1)
            }),
            Self::DoubleSmoothly => each_channel(hidden, |planes| {
                planes.conv_transpose2d(&filter(planes, 4.0)?, 1, 0, 2, 1)
            }),
        }
    }
}

/// Copies each pixel, with all its channels, four times.
fn double(hidden: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = hidden.dims4()?;
    let pixels = channels_last(hidden)?.reshape((batch, height, 1, width, 1, channels))?;
    let four = pixels.broadcast_as((batch, height, 2, width, 2, channels))?;
    channels_first(&four.reshape((batch, 2 * height, 2 * width, channels))?)
}

/// Works on each channel by itself.
fn each_channel(hidden: &Tensor, work: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, channels, height, width) = hidden.dims4()?;
    let planes = hidden.reshape((batch * channels, 1, height, width))?;
    let planes = work(&planes)?;
    let (_, _, height, width) = planes.dims4()?;
    planes.reshape((batch, channels, height, width))
}

/// The filter in both directions, `(1, 1, 4, 4)`.
fn filter(like: &Tensor, gain: f32) -> Result<Tensor> {
    let sum: f32 = FILTER.iter().sum();
    let values = FILTER.iter().flat_map(|row| {
        let column = |column: &f32| row * column / (sum * sum) * gain;
        FILTER.iter().map(column).collect::<Vec<_>>()
    });
    let values: Vec<f32> = values.collect();
    Tensor::from_vec(values, (1, 1, 4, 4), like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn ramp() -> Tensor {
        let ramp = Tensor::arange(0_f32, 32.0, &Device::Cpu);
        ramp.and_then(|ramp| ramp.reshape((1, 2, 4, 4)))
            .expect("a tensor")
    }

    #[test]
    fn sizes_are_halved_and_doubled() {
        for (resample, side) in [
            (Resample::Halve, 2),
            (Resample::HalveSmoothly, 2),
            (Resample::Double, 8),
            (Resample::DoubleSmoothly, 8),
        ] {
            let output = resample.apply(&ramp()).expect("a tensor");
            assert_eq!(output.dims(), [1, 2, side, side], "{resample:?}");
        }
    }

    #[test]
    fn a_filter_keeps_what_is_even_but_at_the_border() {
        let even = Tensor::ones((1, 1, 8, 8), DType::F32, &Device::Cpu).expect("a tensor");
        for resample in [Resample::HalveSmoothly, Resample::DoubleSmoothly] {
            let output = resample.apply(&even).expect("a tensor");
            let rows = output.squeeze(0).and_then(|output| output.squeeze(0));
            let rows = rows.and_then(|rows| rows.to_vec2::<f32>()).expect("rows");
            let middle = rows.len() / 2;
            assert!((rows[middle][middle] - 1.0).abs() < 1e-6, "{resample:?}");
            assert!(rows[0][0] < 1.0, "{resample:?}: zeros are around it");
        }
    }
}
