//! The blocks on the way up.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{Attention, Layer, ResnetBlock, ResnetShape, attention, resampling};
use crate::pipeline::ddpm::unet::{
    ActivationFunction, BlockType, Conv, Norm, Shape, UNetConfig, kernels::joined,
    resample::Resample,
};

/// One of diffusers' `…UpBlock2D`, and `ResnetUpsampleBlock2D`.
pub(in super::super) struct UpBlock {
    layers: Vec<Layer>,
    /// The one attention of a block with a skip.
    attention: Option<Attention>,
    upsample: Option<Upsample>,
    has_skip: bool,
}

/// How a block doubles what it has worked on.
enum Upsample {
    Conv(Conv),
    Resnet(ResnetBlock),
    /// Paints on the picture that goes along.
    Skip {
        resnet: ResnetBlock,
        norm: Norm,
        conv: Conv,
    },
}

impl UpBlock {
    pub(in super::super) fn new(
        config: &UNetConfig,
        index: usize,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        let block = config.up_blocks[index];
        // A block with a skip has its attention after the last layer only.
        let of_layers = if block.has_skip() {
            BlockType::Skip
        } else {
            block
        };
        let layer = |(layer, (below, skip, outputs)): (usize, (usize, usize, usize))| {
            let usual = config.norm_num_groups;
            let first = block.up_groups(usual, below, skip);
            let groups = (first, block.groups(usual, outputs));
            let shape = ResnetShape::new((below + skip, outputs), groups, block.scale_factor());
            Layer::new(config, of_layers, layer, shape, &vb)
        };
        let layers = config.up_layers(index).enumerate().map(layer);
        let layers = layers.collect::<Result<_>>()?;
        let channels = &config.block_out_channels;
        let outputs = channels[channels.len() - 1 - index];
        let after =
            (block == BlockType::AttentionSkip).then(|| attention(config, block, outputs, 0, &vb));
        let is_last = index + 1 == channels.len();
        let upsample = (!is_last).then(|| Upsample::new(config, block, outputs, &vb));
        Ok(Self {
            layers,
            attention: after.transpose()?,
            upsample: upsample.transpose()?,
            has_skip: block.has_skip(),
        })
    }

    /// Takes what the way down left. `picture` grows with the blocks that paint on it.
    pub(in super::super) fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
        picture: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        let mut hidden = hidden.clone();
        for layer in &self.layers {
            let skip = skips.pop().expect("the way down left one for each layer");
            hidden = layer.forward(&joined(&hidden, &skip)?, time)?;
        }
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden)?;
        }
        if let (true, Some(small)) = (self.has_skip, &picture) {
            *picture = Some(Resample::DoubleSmoothly.apply(small)?);
        }
        match &self.upsample {
            Some(upsample) => upsample.forward(&hidden, time, picture),
            None => Ok(hidden),
        }
    }
}

impl Upsample {
    fn new(
        config: &UNetConfig,
        block: BlockType,
        channels: usize,
        vb: &VarBuilder<'static>,
    ) -> Result<Self> {
        let resnet = |resample, vb| resampling(config, block, channels, resample, vb);
        let vb_up = vb.pp("upsamplers").pp(0);
        if block.has_skip() {
            let groups = block.groups(config.norm_num_groups, channels);
            return Ok(Self::Skip {
                resnet: resnet(Resample::DoubleSmoothly, vb.pp("resnet_up"))?,
                norm: Norm::new(groups, channels, config.norm_eps, vb.pp("skip_norm"))?,
                conv: Conv::new(
                    Shape::same(channels, config.in_channels),
                    vb.pp("skip_conv"),
                )?,
            });
        }
        if config.doubles_by_resnet(block) {
            return Ok(Self::Resnet(resnet(Resample::Double, vb_up)?));
        }
        let conv = Conv::new(Shape::same(channels, channels), vb_up.pp("conv"))?;
        Ok(Self::Conv(conv))
    }

    fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        picture: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(&Resample::Double.apply(hidden)?),
            Self::Resnet(resnet) => resnet.forward(hidden, time),
            Self::Skip { resnet, norm, conv } => {
                let silu = Some(ActivationFunction::Silu);
                let painted = conv.forward(&norm.forward(hidden, silu)?)?;
                *picture = Some(match picture.take() {
                    Some(picture) => (picture + painted)?,
                    None => painted,
                });
                resnet.forward(hidden, time)
            }
        }
    }
}
