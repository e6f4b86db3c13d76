//! The blocks of the network, and the layer that they are made of.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{
    BlockType, UNetConfig,
    attention::Attention,
    resample::Resample,
    resnet::{ResnetBlock, ResnetShape},
};

mod down;
mod mid;
mod up;

pub(super) use down::DownBlock;
pub(super) use mid::MidBlock;
pub(super) use up::UpBlock;

/// A residual block, and the attention after it where there is some.
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Attention>,
}

impl Layer {
    /// The layer of a number in a block.
    fn new(
        config: &UNetConfig,
        block: BlockType,
        index: usize,
        shape: ResnetShape,
        vb: &VarBuilder<'static>,
    ) -> Result<Self> {
        let resnet = ResnetBlock::new(config, shape, vb.pp("resnets").pp(index))?;
        let attention = block
            .has_attention()
            .then(|| attention(config, block, shape.outputs, index, vb));
        Ok(Self {
            resnet,
            attention: attention.transpose()?,
        })
    }

    fn forward(&self, hidden: &Tensor, time: &Tensor) -> Result<Tensor> {
        let hidden = self.resnet.forward(hidden, time)?;
        match &self.attention {
            Some(attention) => attention.forward(&hidden),
            None => Ok(hidden),
        }
    }
}

fn attention(
    config: &UNetConfig,
    block: BlockType,
    channels: usize,
    index: usize,
    vb: &VarBuilder<'static>,
) -> Result<Attention> {
    let groups = Some(block.attention_groups(config.norm_num_groups));
    let vb = vb.pp("attentions").pp(index);
    Attention::new(config, channels, groups, block.scale_factor(), vb)
}

/// The residual block that ends a block in another size.
fn resampling(
    config: &UNetConfig,
    block: BlockType,
    channels: usize,
    resample: Resample,
    vb: VarBuilder<'static>,
) -> Result<ResnetBlock> {
    let groups = block.groups(config.norm_num_groups, channels);
    let shape = ResnetShape::resampling(channels, groups, block.scale_factor(), resample);
    ResnetBlock::new(config, shape, vb)
}
