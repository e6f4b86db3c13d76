//! The block between the way down and the way up.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{Attention, ResnetBlock, ResnetShape};
use crate::pipeline::ddpm::unet::UNetConfig;

/// diffusers' `UNetMidBlock2D`.
pub(in super::super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<Attention>,
    second: ResnetBlock,
}

impl MidBlock {
    pub(in super::super) fn new(config: &UNetConfig, vb: VarBuilder<'static>) -> Result<Self> {
        let channels = *config
            .block_out_channels
            .last()
            .expect("a configuration has blocks");
        let factor = config.mid_block_scale_factor;
        let groups = config.groups(channels);
        let shape = ResnetShape::new((channels, channels), (groups, groups), factor);
        let resnet = |index: usize| ResnetBlock::new(config, shape, vb.pp("resnets").pp(index));
        // Where time scales and shifts, diffusers' attention has no norm unless it is asked for one.
        let groups = config
            .attn_norm_num_groups
            .or((!config.time_scale_shift).then_some(groups));
        let attention =
            || Attention::new(config, channels, groups, factor, vb.pp("attentions").pp(0));
        Ok(Self {
            first: resnet(0)?,
            attention: config.add_attention.then(attention).transpose()?,
            second: resnet(1)?,
        })
    }

    pub(in super::super) fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        let mut hidden = self.first.forward(hidden, time)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden)?;
        }
        self.second.forward(&hidden, time)
    }
}
