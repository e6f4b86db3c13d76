//! Convolutions: candle's own, and on the CPU one that packs its weights once.

use candle_core::{D, DType, Result, Tensor, bail};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, conv2d};

use super::kernels::{channels_first, channels_last, has_kernels, numbers};

mod pack;
#[cfg(test)]
mod parity;
mod start;
mod unfold;
mod winograd;

use start::{Picture, Start};

/// What kind of convolution it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Pixels along a side of what an output pixel sees.
    pub(super) size: usize,
    pub(super) stride: usize,
    /// Zeros on the left and above.
    pub(super) padding: usize,
    /// Zeros on the right and below.
    pub(super) trailing: usize,
}

impl Shape {
    /// Three by three pixels, with a border: the picture keeps its size.
    pub(super) fn same(inputs: usize, outputs: usize) -> Self {
        Self {
            inputs,
            outputs,
            size: 3,
            stride: 1,
            padding: 1,
            trailing: 1,
        }
    }

    /// Each pixel by itself.
    pub(super) fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self {
            size: 1,
            padding: 0,
            trailing: 0,
            ..Self::same(inputs, outputs)
        }
    }

    /// Halves the picture. Without padding there is still one line of zeros, on the right and below.
    pub(super) fn halve(channels: usize, padding: usize) -> Self {
        Self {
            stride: 2,
            padding,
            trailing: padding.max(1),
            ..Self::same(channels, channels)
        }
    }

    /// Numbers that a convolution holds on the CPU besides its input and its output.
    pub(super) fn scratch(&self, side: (usize, usize), batch: usize, threads: usize) -> u128 {
        if winograd::pays(self, side, batch) {
            winograd::scratch(self, side, batch, threads)
        } else if self.is_pointwise() {
            0
        } else {
            let (height, width) = self.output(side.0, side.1);
            let tile = unfold::tile(self, batch * height * width, threads);
            threads as u128 * tile as u128 * self.unfolded() as u128
        }
    }

    fn is_pointwise(&self) -> bool {
        *self == Self::pointwise(self.inputs, self.outputs)
    }

    /// Numbers that an output pixel sees.
    fn unfolded(&self) -> usize {
        self.size * self.size * self.inputs
    }

    /// Height and width of what comes out.
    fn output(&self, height: usize, width: usize) -> (usize, usize) {
        let side = |side: usize| {
            (side + self.padding + self.trailing).saturating_sub(self.size) / self.stride + 1
        };
        (side(height), side(width))
    }
}

/// A convolution with a bias.
pub(super) struct Conv {
    shape: Shape,
    kernel: Kernel,
}

enum Kernel {
    /// candle's.
    Plain(Conv2d),
    /// `(size · size · inputs, outputs)`, and `(outputs)`.
    Packed { weights: Tensor, bias: Tensor },
}

impl Conv {
    pub(super) fn new(shape: Shape, vb: VarBuilder<'static>) -> Result<Self> {
        let config = Conv2dConfig {
            stride: shape.stride,
            padding: shape.padding,
            ..Default::default()
        };
        let plain = conv2d(shape.inputs, shape.outputs, shape.size, config, vb)?;
        let weights = plain.weight();
        let kernel = if has_kernels(weights.dtype(), weights.device()) {
            Kernel::pack(plain)?
        } else {
            Kernel::Plain(plain)
        };
        Ok(Self { shape, kernel })
    }

    /// The number format of the weights.
    pub(super) fn dtype(&self) -> DType {
        match &self.kernel {
            Kernel::Plain(conv) => conv.weight().dtype(),
            Kernel::Packed { weights, .. } => weights.dtype(),
        }
    }

    /// `picture` has the shape `(batch, channels, height, width)`.
    pub(super) fn forward(&self, picture: &Tensor) -> Result<Tensor> {
        self.forward_onto(picture, None, None)
    }

    /// Adds `shift`, `(batch, outputs)`, to all pixels of a sample, and `onto`, which has the shape of the output.
    pub(super) fn forward_onto(
        &self,
        picture: &Tensor,
        shift: Option<&Tensor>,
        onto: Option<&Tensor>,
    ) -> Result<Tensor> {
        match &self.kernel {
            Kernel::Plain(conv) => self.plain(conv, picture, shift, onto),
            Kernel::Packed { weights, bias } => {
                let bias = match shift {
                    Some(shift) => shift.broadcast_add(bias)?,
                    None => bias.unsqueeze(0)?,
                };
                self.packed(picture, weights, &bias, onto)
            }
        }
    }

    fn plain(
        &self,
        conv: &Conv2d,
        picture: &Tensor,
        shift: Option<&Tensor>,
        onto: Option<&Tensor>,
    ) -> Result<Tensor> {
        let more = self.shape.trailing - self.shape.padding;
        let mut made = if more > 0 {
            let padded = picture.pad_with_zeros(2, 0, more)?;
            conv.forward(&padded.pad_with_zeros(3, 0, more)?)?
        } else {
            conv.forward(picture)?
        };
        if let Some(shift) = shift {
            let shift = shift.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?;
            made = made.broadcast_add(&shift)?;
        }
        match onto {
            Some(onto) => onto + made,
            None => Ok(made),
        }
    }

    fn packed(
        &self,
        picture: &Tensor,
        weights: &Tensor,
        bias: &Tensor,
        onto: Option<&Tensor>,
    ) -> Result<Tensor> {
        let shape = &self.shape;
        let picture = channels_last(picture)?;
        let (batch, height, width, channels) = picture.dims4()?;
        if channels != shape.inputs {
            bail!(
                "a picture of {channels} channels, and a kernel for {}",
                shape.inputs
            );
        }
        let onto = onto.map(channels_last).transpose()?;
        let (tall, wide) = shape.output(height, width);
        let mut to = vec![0.0; batch * tall * wide * shape.outputs];
        {
            let (pixels, weights) = (numbers(&picture)?, numbers(weights)?);
            let (bias, onto) = (numbers(bias)?, onto.as_ref().map(numbers));
            let onto = onto.transpose()?;
            let from = Picture {
                numbers: &pixels,
                height,
                width,
            };
            let start = Start {
                bias: &bias,
                channels: shape.outputs,
                onto: onto.as_deref(),
            };
            if winograd::pays(shape, (height, width), batch) {
                winograd::convolve(shape, from, &weights, &start, &mut to);
            } else {
                unfold::convolve(shape, from, &weights, &start, &mut to);
            }
        }
        let made = Tensor::from_vec(to, (batch, tall, wide, shape.outputs), picture.device())?;
        channels_first(&made)
    }
}

impl Kernel {
    fn pack(conv: Conv2d) -> Result<Self> {
        let (weights, outputs) = (conv.weight(), conv.weight().dim(0)?);
        let bias = match conv.bias() {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(outputs, weights.dtype(), weights.device())?,
        };
        let weights = pack::pack(weights.clone())?;
        Ok(Self::Packed { weights, bias })
    }
}
