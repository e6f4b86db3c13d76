//! The blocks on the way down.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{Layer, ResnetBlock, ResnetShape, resampling};
use crate::pipeline::ddpm::unet::{BlockType, Conv, Shape, UNetConfig, resample::Resample};

/// One of diffusers' `…DownBlock2D`, and `ResnetDownsampleBlock2D`.
pub(in super::super) struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Downsample>,
}

/// How a block halves what it has worked on.
enum Downsample {
    Conv(Conv),
    Resnet(ResnetBlock),
    /// Adds the picture itself in its smaller size.
    Skip {
        resnet: ResnetBlock,
        conv: Conv,
    },
}

impl DownBlock {
    pub(in super::super) fn new(
        config: &UNetConfig,
        index: usize,
        vb: VarBuilder<'static>,
    ) -> Result<Self> {
        let block = config.down_blocks[index];
        let outputs = config.block_out_channels[index];
        let layer = |(layer, (inputs, outputs)): (usize, (usize, usize))| {
            let groups = |channels| block.groups(config.norm_num_groups, channels);
            let groups = (groups(inputs), groups(outputs));
            let shape = ResnetShape::new((inputs, outputs), groups, block.scale_factor());
            Layer::new(config, block, layer, shape, &vb)
        };
        let layers = config.down_layers(index).enumerate().map(layer);
        let layers = layers.collect::<Result<_>>()?;
        let is_last = index + 1 == config.block_out_channels.len();
        let downsample = (!is_last).then(|| Downsample::new(config, block, outputs, &vb));
        Ok(Self {
            layers,
            downsample: downsample.transpose()?,
        })
    }

    /// Keeps what each layer gives in `skips`, for the way up. `picture` goes along in its smaller sizes, in blocks
    /// that use it.
    pub(in super::super) fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
        picture: &mut Tensor,
    ) -> Result<Tensor> {
        let mut hidden = hidden.clone();
        for layer in &self.layers {
            hidden = layer.forward(&hidden, time)?;
            skips.push(hidden.clone());
        }
        if let Some(downsample) = &self.downsample {
            hidden = downsample.forward(&hidden, time, picture)?;
            skips.push(hidden.clone());
        }
        Ok(hidden)
    }
}

impl Downsample {
    fn new(
        config: &UNetConfig,
        block: BlockType,
        channels: usize,
        vb: &VarBuilder<'static>,
    ) -> Result<Self> {
        let resnet = |resample, vb| resampling(config, block, channels, resample, vb);
        let first = vb.pp("downsamplers").pp(0);
        if block.has_skip() {
            let shape = Shape::pointwise(config.in_channels, channels);
            Ok(Self::Skip {
                resnet: resnet(Resample::HalveSmoothly, vb.pp("resnet_down"))?,
                conv: Conv::new(shape, vb.pp("skip_conv"))?,
            })
        } else if config.halves_by_resnet(block) {
            Ok(Self::Resnet(resnet(Resample::Halve, first)?))
        } else {
            let shape = Shape::halve(channels, config.downsample_padding);
            Ok(Self::Conv(Conv::new(shape, first.pp("conv"))?))
        }
    }

    fn forward(&self, hidden: &Tensor, time: &Tensor, picture: &mut Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(hidden),
            Self::Resnet(resnet) => resnet.forward(hidden, time),
            Self::Skip { resnet, conv } => {
                *picture = Resample::HalveSmoothly.apply(picture)?;
                let small = conv.forward(picture)?;
                small + resnet.forward(hidden, time)?
            }
        }
    }
}
