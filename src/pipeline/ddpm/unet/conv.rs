//! Convolutions: candle's own, and on the CPU one that packs its weights once.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, conv2d};

use super::kernels::{channels_first, channels_last, has_kernels, numbers};

mod unfold;
mod winograd;

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
        let (batch, height, width, _) = picture.dims4()?;
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
        let (outputs, inputs, size, _) = conv.weight().dims4()?;
        let weights = conv.weight().permute((2, 3, 1, 0))?.contiguous()?;
        let bias = match conv.bias() {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(outputs, weights.dtype(), weights.device())?,
        };
        Ok(Self::Packed {
            weights: weights.reshape((size * size * inputs, outputs))?,
            bias,
        })
    }
}

/// Pictures of a batch, channels last.
#[derive(Clone, Copy)]
struct Picture<'a> {
    numbers: &'a [f32],
    height: usize,
    width: usize,
}

/// What the output is before the convolution is added.
struct Start<'a> {
    /// One for each channel, of all samples or of each.
    bias: &'a [f32],
    channels: usize,
    onto: Option<&'a [f32]>,
}

impl Start<'_> {
    /// Fills a run of pixels, of which a sample has so many.
    fn fill(&self, to: &mut [f32], first: usize, of: usize) {
        let samples = self.bias.len() / self.channels;
        for (index, to) in to.chunks_exact_mut(self.channels).enumerate() {
            let pixel = first + index;
            let sample = pixel / of % samples;
            let bias = &self.bias[sample * self.channels..][..self.channels];
            match self.onto {
                None => to.copy_from_slice(bias),
                Some(onto) => {
                    let onto = &onto[pixel * self.channels..][..self.channels];
                    for ((to, bias), onto) in to.iter_mut().zip(bias).zip(onto) {
                        *to = bias + onto;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::ddpm::unet::kernels::tests::{largest, random};

    fn both(shape: Shape) -> [Conv; 2] {
        let Shape {
            inputs,
            outputs,
            size,
            ..
        } = shape;
        let config = Conv2dConfig {
            stride: shape.stride,
            padding: shape.padding,
            ..Default::default()
        };
        let weights = random(&[outputs, inputs, size, size], 1);
        let plain = Conv2d::new(weights, Some(random(&[outputs], 2)), config);
        let packed = Kernel::pack(plain.clone()).expect("weights in another order");
        [Kernel::Plain(plain), packed].map(|kernel| Conv { shape, kernel })
    }

    /// Both ways give the same, whatever order the picture lies in.
    #[track_caller]
    fn assert_same(shape: Shape, [batch, height, width]: [usize; 3], added: bool) {
        let picture = random(&[batch, shape.inputs, height, width], 3);
        let (tall, wide) = shape.output(height, width);
        let onto = random(&[batch, shape.outputs, tall, wide], 4);
        let shift = random(&[batch, shape.outputs], 5);
        let (shift, onto) = (added.then_some(&shift), added.then_some(&onto));
        let [plain, packed] = both(shape);
        let expected = plain
            .forward_onto(&picture, shift, onto)
            .expect("a picture");
        let last = channels_last(&picture).and_then(|picture| channels_first(&picture));
        for picture in [picture, last.expect("the same")] {
            let made = packed.forward_onto(&picture, shift, onto);
            let made = made.expect("a picture");
            assert_eq!(made.dims(), expected.dims(), "{shape:?}");
            let error = largest(&(made - &expected).expect("the same shape"));
            assert!(error < 1e-5 * largest(&expected), "{shape:?}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_candles_convolution(
            (inputs, outputs) in (1_usize..40, 1_usize..40),
            size in 1_usize..5,
            stride in 1_usize..4,
            padding in 0_usize..3,
            more in 0_usize..2,
            (batch, height, width) in (1_usize..4, 4_usize..13, 4_usize..13),
            added: bool,
        ) {
            let trailing = padding + more;
            let shape = Shape { inputs, outputs, size, stride, padding, trailing };
            assert_same(shape, [batch, height, width], added);
        }

        #[test]
        fn with_fewer_multiplications_it_is_the_same(
            (inputs, outputs) in (16_usize..70, 16_usize..70),
            (batch, down, across) in (1_usize..4, 2_usize..9, 4_usize..9),
            added: bool,
        ) {
            let shape = Shape::same(inputs, outputs);
            assert_same(shape, [batch, 4 * down, 4 * across], added);
        }
    }

    #[test]
    fn what_is_large_enough_is_transformed() {
        let shape = Shape::same(128, 128);
        assert!(winograd::pays(&shape, (64, 64), 1));
        assert!(!winograd::pays(&shape, (62, 64), 1), "tiles do not fit");
        assert!(!winograd::pays(&Shape::halve(128, 1), (64, 64), 1));
        assert!(!winograd::pays(&Shape::same(3, 128), (64, 64), 1));
    }

    #[test]
    fn weights_are_not_held_twice() {
        let [plain, packed] = both(Shape::same(8, 4));
        let (Kernel::Plain(plain), Kernel::Packed { weights, .. }) = (plain.kernel, packed.kernel)
        else {
            panic!("one of each");
        };
        assert_eq!(weights.elem_count(), plain.weight().elem_count());
        assert_eq!(weights.dims(), [72, 4]);
        assert!(has_kernels(weights.dtype(), &Device::Cpu));
    }
}
