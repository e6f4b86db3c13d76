//! The residual block: two convolutions that are told the time, around a shortcut.

use candle_core::{D, Result, Tensor};
use candle_nn::{
    Conv2d, GroupNorm, Linear, Module, VarBuilder, conv2d, group_norm, linear, ops::silu,
};

use super::{SAME, UNetConfig};

/// diffusers' `ResnetBlock2D`.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    time_scale_shift: bool,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    scale_factor: f64,
}

impl ResnetBlock {
    pub(super) fn new(
        config: &UNetConfig,
        inputs: usize,
        outputs: usize,
        scale_factor: f64,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        let (groups, eps) = (config.norm_num_groups, config.norm_eps);
        let time_outputs = if config.time_scale_shift {
            2 * outputs
        } else {
            outputs
        };
        let one_by_one = || {
            conv2d(
                inputs,
                outputs,
                1,
                Default::default(),
                vb.pp("conv_shortcut"),
            )
        };
        Ok(Self {
            norm1: group_norm(groups, inputs, eps, vb.pp("norm1"))?,
            conv1: conv2d(inputs, outputs, 3, SAME, vb.pp("conv1"))?,
            time: linear(
                config.time_embedding_dim,
                time_outputs,
                vb.pp("time_emb_proj"),
            )?,
            time_scale_shift: config.time_scale_shift,
            norm2: group_norm(groups, outputs, eps, vb.pp("norm2"))?,
            conv2: conv2d(outputs, outputs, 3, SAME, vb.pp("conv2"))?,
            shortcut: (inputs != outputs).then(one_by_one).transpose()?,
            scale_factor,
        })
    }

    /// `hidden` has the shape `(batch, channels, height, width)`, `time` the shape `(batch, dim)`.
    pub(super) fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        let inner = self.conv1.forward(&silu(&self.norm1.forward(hidden)?)?)?;
        let time = self
            .time
            .forward(&silu(time)?)?
            .unsqueeze(D::Minus1)?
            .unsqueeze(D::Minus1)?;
        let inner = if self.time_scale_shift {
            let parts = time.chunk(2, 1)?;
            let normed = self.norm2.forward(&inner)?;
            normed
                .broadcast_mul(&parts[0].affine(1.0, 1.0)?)?
                .broadcast_add(&parts[1])?
        } else {
            self.norm2.forward(&inner.broadcast_add(&time)?)?
        };
        let inner = self.conv2.forward(&silu(&inner)?)?;
        let outer = match &self.shortcut {
            Some(shortcut) => shortcut.forward(hidden)?,
            None => hidden.clone(),
        };
        scaled(outer + inner, self.scale_factor)
    }
}

/// Divides by a block's scale factor, which nearly always is one.
pub(super) fn scaled(sum: Result<Tensor>, factor: f64) -> Result<Tensor> {
    if factor == 1.0 { sum } else { sum? / factor }
}
