//! The residual block: two convolutions that are told the time, around a shortcut.

use candle_core::{D, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::{
    ActivationFunction, Conv, Norm, Shape, UNetConfig, kernels::each_number, resample::Resample,
};

/// What kind of residual block it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResnetShape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Groups of the two norms.
    pub(super) groups: (usize, usize),
    /// Divides the output.
    pub(super) scale_factor: f64,
    pub(super) resample: Option<Resample>,
    /// Whether the shortcut has weights, too.
    pub(super) shortcut: bool,
}

impl ResnetShape {
    /// A block that changes channels, and not the size.
    pub(super) fn new(
        (inputs, outputs): (usize, usize),
        groups: (usize, usize),
        scale_factor: f64,
    ) -> Self {
        Self {
            inputs,
            outputs,
            groups,
            scale_factor,
            resample: None,
            shortcut: inputs != outputs,
        }
    }

    /// A block that changes the size, and not the channels.
    pub(super) fn resampling(
        channels: usize,
        groups: usize,
        scale_factor: f64,
        resample: Resample,
    ) -> Self {
        let smoothly = matches!(resample, Resample::HalveSmoothly | Resample::DoubleSmoothly);
        Self {
            resample: Some(resample),
            shortcut: smoothly,
            ..Self::new((channels, channels), (groups, groups), scale_factor)
        }
    }
}

/// diffusers' `ResnetBlock2D`.
pub(super) struct ResnetBlock {
    norm1: Norm,
    conv1: Conv,
    time: Linear,
    time_scale_shift: bool,
    norm2: Norm,
    conv2: Conv,
    shortcut: Option<Conv>,
    activation: ActivationFunction,
    resample: Option<Resample>,
    scale_factor: f64,
}

impl ResnetBlock {
    pub(super) fn new(
        config: &UNetConfig,
        shape: ResnetShape,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        let ResnetShape {
            inputs, outputs, ..
        } = shape;
        let norm = |groups, channels, name: &str| {
            Norm::new(groups, channels, config.norm_eps, vb.pp(name))
        };
        let times = if config.time_scale_shift { 2 } else { 1 };
        let one_by_one = || Conv::new(Shape::pointwise(inputs, outputs), vb.pp("conv_shortcut"));
        let time = vb.pp("time_emb_proj");
        Ok(Self {
            norm1: norm(shape.groups.0, inputs, "norm1")?,
            conv1: Conv::new(Shape::same(inputs, outputs), vb.pp("conv1"))?,
            time: linear(config.time_embedding_dim, times * outputs, time)?,
            time_scale_shift: config.time_scale_shift,
            norm2: norm(shape.groups.1, outputs, "norm2")?,
            conv2: Conv::new(Shape::same(outputs, outputs), vb.pp("conv2"))?,
            shortcut: shape.shortcut.then(one_by_one).transpose()?,
            activation: config.act_fn,
            resample: shape.resample,
            scale_factor: shape.scale_factor,
        })
    }

    /// `hidden` has the shape `(batch, channels, height, width)`, `time` the shape `(batch, dim)`.
    pub(super) fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        // Overwritten and not shadowed: what is not needed any more goes at once.
        let mut inner = self.norm1.forward(hidden, Some(self.activation))?;
        let mut outer = hidden.clone();
        if let Some(resample) = self.resample {
            inner = resample.apply(&inner)?;
            outer = resample.apply(&outer)?;
        }
        inner = self.with_time(inner, time)?;
        if let Some(shortcut) = &self.shortcut {
            outer = shortcut.forward(&outer)?;
        }
        let sum = self.conv2.forward_onto(&inner, None, Some(&outer));
        scaled(sum, self.scale_factor)
    }

    /// The first convolution and the second norm. Adds the time before the norm, or scales and shifts by it after.
    fn with_time(&self, mut inner: Tensor, time: &Tensor) -> Result<Tensor> {
        let time = self.time.forward(&self.activation.apply(time)?)?;
        if !self.time_scale_shift {
            inner = self.conv1.forward_onto(&inner, Some(&time), None)?;
            return self.norm2.forward(&inner, Some(self.activation));
        }
        let time = time.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?;
        let parts = time.chunk(2, 1)?;
        inner = self.conv1.forward(&inner)?;
        inner = self.norm2.forward(&inner, None)?;
        inner = inner
            .broadcast_mul(&parts[0].affine(1.0, 1.0)?)?
            .broadcast_add(&parts[1])?;
        self.activation.apply(&inner)
    }
}

/// Divides by a block's scale factor, which nearly always is one.
pub(super) fn scaled(sum: Result<Tensor>, factor: f64) -> Result<Tensor> {
    if factor == 1.0 {
        sum
    } else {
        each_number(&sum?, |sum| sum / factor)
    }
}
