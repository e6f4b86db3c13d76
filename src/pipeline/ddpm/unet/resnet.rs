//! The residual block: two convolutions that are told the time, around a shortcut.

use candle_core::{D, Result, Tensor};
use candle_nn::{Conv2d, GroupNorm, Linear, Module, VarBuilder, conv2d, group_norm, linear};

use super::{ActivationFunction, SAME, UNetConfig, resample::Resample};

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
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    time_scale_shift: bool,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
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
            group_norm(groups, channels, config.norm_eps, vb.pp(name))
        };
        let times = if config.time_scale_shift { 2 } else { 1 };
        let one_by_one = || {
            conv2d(
                inputs,
                outputs,
                1,
                Default::default(),
                vb.pp("conv_shortcut"),
            )
        };
        let time = vb.pp("time_emb_proj");
        Ok(Self {
            norm1: norm(shape.groups.0, inputs, "norm1")?,
            conv1: conv2d(inputs, outputs, 3, SAME, vb.pp("conv1"))?,
            time: linear(config.time_embedding_dim, times * outputs, time)?,
            time_scale_shift: config.time_scale_shift,
            norm2: norm(shape.groups.1, outputs, "norm2")?,
            conv2: conv2d(outputs, outputs, 3, SAME, vb.pp("conv2"))?,
            shortcut: shape.shortcut.then(one_by_one).transpose()?,
            activation: config.act_fn,
            resample: shape.resample,
            scale_factor: shape.scale_factor,
        })
    }

    /// `hidden` has the shape `(batch, channels, height, width)`, `time` the shape `(batch, dim)`.
    pub(super) fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        // Overwritten and not shadowed: what is not needed any more goes at once.
        let mut inner = self.norm1.forward(hidden)?;
        inner = self.activation.apply(&inner)?;
        let mut outer = hidden.clone();
        if let Some(resample) = self.resample {
            inner = resample.apply(&inner)?;
            outer = resample.apply(&outer)?;
        }
        inner = self.conv1.forward(&inner)?;
        inner = self.with_time(&inner, time)?;
        inner = self.activation.apply(&inner)?;
        inner = self.conv2.forward(&inner)?;
        if let Some(shortcut) = &self.shortcut {
            outer = shortcut.forward(&outer)?;
        }
        scaled(outer + inner, self.scale_factor)
    }

    /// Adds the time before the norm, or scales and shifts by it after.
    fn with_time(&self, inner: &Tensor, time: &Tensor) -> Result<Tensor> {
        let time = self
            .time
            .forward(&self.activation.apply(time)?)?
            .unsqueeze(D::Minus1)?
            .unsqueeze(D::Minus1)?;
        if self.time_scale_shift {
            let parts = time.chunk(2, 1)?;
            let normed = self.norm2.forward(inner)?;
            normed
                .broadcast_mul(&parts[0].affine(1.0, 1.0)?)?
                .broadcast_add(&parts[1])
        } else {
            self.norm2.forward(&inner.broadcast_add(&time)?)
        }
    }
}

/// Divides by a block's scale factor, which nearly always is one.
pub(super) fn scaled(sum: Result<Tensor>, factor: f64) -> Result<Tensor> {
    if factor == 1.0 { sum } else { sum? / factor }
}
