//! Attention between all pixels of a picture.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear, ops::softmax_last_dim};

use super::{
    Norm, UNetConfig,
    kernels::{self, channels_first, channels_last, has_kernels, mix},
    resnet::scaled,
};

/// diffusers' `Attention`, as its UNet uses it: with a norm before and the input added after.
pub(super) struct Attention {
    heads: usize,
    norm: Option<Norm>,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    scale_factor: f64,
}

impl Attention {
    pub(super) fn new(
        config: &UNetConfig,
        channels: usize,
        groups: Option<usize>,
        scale_factor: f64,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        // Checkpoints from before 2023 have other names.
        let names = if vb.contains_tensor("query.weight") {
            ["query", "key", "value", "proj_attn"]
        } else {
            ["to_q", "to_k", "to_v", "to_out.0"]
        };
        let [query, key, value, out] = names.map(|name| linear(channels, channels, vb.pp(name)));
        let norm =
            groups.map(|groups| Norm::new(groups, channels, config.norm_eps, vb.pp("group_norm")));
        Ok(Self {
            heads: channels / config.attention_head_dim.unwrap_or(channels),
            norm: norm.transpose()?,
            query: query?,
            key: key?,
            value: value?,
            out: out?,
            scale_factor,
        })
    }

    /// `hidden` has the shape `(batch, channels, height, width)`.
    pub(super) fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let normed = match &self.norm {
            Some(norm) => norm.forward(hidden, None)?,
            None => hidden.clone(),
        };
        if has_kernels(hidden.dtype(), hidden.device()) {
            return self.forward_in_kernels(&channels_last(hidden)?, &channels_last(&normed)?);
        }
        let (batch, channels, height, width) = hidden.dims4()?;
        let normed = normed.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let size = channels / self.heads;
        let split = |layer: &Linear| -> Result<Tensor> {
            let projected = layer.forward(&normed)?;
            projected
                .reshape((batch, height * width, self.heads, size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scores = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? / (size as f64).sqrt())?;
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        let mixed = mixed
            .transpose(1, 2)?
            .reshape((batch, height * width, channels))?;
        let out = self
            .out
            .forward(&mixed)?
            .transpose(1, 2)?
            .reshape((batch, channels, height, width))?;
        scaled(hidden + out, self.scale_factor)
    }

    /// The same on the CPU, where all channels of a pixel lie side by side.
    fn forward_in_kernels(&self, hidden: &Tensor, normed: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = hidden.dims4()?;
        let (pixels, rows) = (height * width, batch * height * width);
        let normed = normed.reshape((rows, channels))?;
        let project = |layer| -> Result<Tensor> {
            kernels::linear(&normed, layer)?.reshape((batch, pixels, channels))
        };
        let [query, key, value] = [&self.query, &self.key, &self.value].map(project);
        let mixed = mix([&query?, &key?, &value?], self.heads)?;
        let out = kernels::linear(&mixed.reshape((rows, channels))?, &self.out)?;
        let sum = (hidden + out.reshape(hidden.shape())?)?;
        scaled(channels_first(&sum), self.scale_factor)
    }
}
