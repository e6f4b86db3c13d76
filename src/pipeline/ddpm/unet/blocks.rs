//! The blocks on the way down, in the middle, and on the way up.

use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, conv2d};

use super::{SAME, UNetConfig, attention::Attention, resnet::ResnetBlock};

/// A residual block, and the attention after it where the block has some.
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Attention>,
}

impl Layer {
    fn new(
        config: &UNetConfig,
        (index, attention): (usize, bool),
        (inputs, outputs): (usize, usize),
        vb: &VarBuilder<'static>,
    ) -> Result<Self> {
        let resnet = ResnetBlock::new(config, inputs, outputs, 1.0, vb.pp("resnets").pp(index))?;
        let vb = vb.pp("attentions").pp(index);
        let groups = Some(config.norm_num_groups);
        let attention = attention
            .then(|| Attention::new(config, outputs, groups, 1.0, vb))
            .transpose()?;
        Ok(Self { resnet, attention })
    }

    fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        let hidden = self.resnet.forward(hidden, time)?;
        match &self.attention {
            Some(attention) => attention.forward(&hidden),
            None => Ok(hidden),
        }
    }
}

/// diffusers' `DownBlock2D` and `AttnDownBlock2D`.
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Conv2d>,
    padding: usize,
}

impl DownBlock {
    pub(super) fn new(config: &UNetConfig, index: usize, vb: VarBuilder<'static>) -> Result<Self> {
        let channels = &config.block_out_channels;
        let outputs = channels[index];
        let inputs = channels[index.saturating_sub(1)];
        let layer = |layer: usize| {
            let inputs = if layer == 0 { inputs } else { outputs };
            Layer::new(
                config,
                (layer, config.down_attention[index]),
                (inputs, outputs),
                &vb,
            )
        };
        let layers = (0..config.layers_per_block)
            .map(layer)
            .collect::<Result<_>>()?;
        let halve = Conv2dConfig {
            stride: 2,
            padding: config.downsample_padding,
            ..SAME
        };
        let downsample = || {
            conv2d(
                outputs,
                outputs,
                3,
                halve,
                vb.pp("downsamplers").pp(0).pp("conv"),
            )
        };
        let is_last = index + 1 == channels.len();
        let downsample = (!is_last).then(downsample).transpose()?;
        Ok(Self {
            layers,
            downsample,
            padding: config.downsample_padding,
        })
    }

    /// Keeps what each layer gives in `skips`, for the way up.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        let mut hidden = hidden.clone();
        for layer in &self.layers {
            hidden = layer.forward(&hidden, time)?;
            skips.push(hidden.clone());
        }
        if let Some(downsample) = &self.downsample {
            if self.padding == 0 {
                hidden = hidden.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
            }
            hidden = downsample.forward(&hidden)?;
            skips.push(hidden.clone());
        }
        Ok(hidden)
    }
}

/// diffusers' `UNetMidBlock2D`.
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<Attention>,
    second: ResnetBlock,
}

impl MidBlock {
    pub(super) fn new(config: &UNetConfig, vb: VarBuilder<'static>) -> Result<Self> {
        let channels = *config
            .block_out_channels
            .last()
            .expect("a configuration has blocks");
        let factor = config.mid_block_scale_factor;
        let resnet = |index: usize| {
            ResnetBlock::new(
                config,
                channels,
                channels,
                factor,
                vb.pp("resnets").pp(index),
            )
        };
        // Where time scales and shifts, diffusers' attention has no norm unless it is asked for one.
        let groups = config
            .attn_norm_num_groups
            .or((!config.time_scale_shift).then_some(config.norm_num_groups));
        let attention =
            || Attention::new(config, channels, groups, factor, vb.pp("attentions").pp(0));
        Ok(Self {
            first: resnet(0)?,
            attention: config.add_attention.then(attention).transpose()?,
            second: resnet(1)?,
        })
    }

    pub(super) fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        let mut hidden = self.first.forward(hidden, time)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden)?;
        }
        self.second.forward(&hidden, time)
    }
}

/// diffusers' `UpBlock2D` and `AttnUpBlock2D`.
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsample: Option<Conv2d>,
}

impl UpBlock {
    pub(super) fn new(config: &UNetConfig, index: usize, vb: VarBuilder<'static>) -> Result<Self> {
        let channels: Vec<_> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        let outputs = channels[index];
        let previous = channels[index.saturating_sub(1)];
        let layer = |layer: usize| {
            let below = if layer == 0 { previous } else { outputs };
            let is_last = layer == config.layers_per_block;
            let skip = if is_last {
                channels[(index + 1).min(last)]
            } else {
                outputs
            };
            Layer::new(
                config,
                (layer, config.up_attention[index]),
                (below + skip, outputs),
                &vb,
            )
        };
        let layers = (0..=config.layers_per_block)
            .map(layer)
            .collect::<Result<_>>()?;
        let upsample = || {
            conv2d(
                outputs,
                outputs,
                3,
                SAME,
                vb.pp("upsamplers").pp(0).pp("conv"),
            )
        };
        Ok(Self {
            layers,
            upsample: (index != last).then(upsample).transpose()?,
        })
    }

    /// Takes from `skips` what its counterparts on the way down gave.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        let mut hidden = hidden.clone();
        for layer in &self.layers {
            let skip = skips
                .pop()
                .expect("the way down left one for each layer of the way up");
            hidden = layer.forward(&Tensor::cat(&[&hidden, &skip], 1)?, time)?;
        }
        match &self.upsample {
            Some(upsample) => {
                let (_, _, height, width) = hidden.dims4()?;
                upsample.forward(&hidden.upsample_nearest2d(2 * height, 2 * width)?)
            }
            None => Ok(hidden),
        }
    }
}
