//! The network: diffusers' `UNet2DModel`.
//!
//! A picture goes down through blocks that halve it, through the middle, and up again, where each block
//! also sees what its counterpart on the way down had. Every residual block is told the time step.

use candle_core::{DType, Result, Tensor};
use candle_nn::{
    Conv2d, Conv2dConfig, GroupNorm, Module, VarBuilder, conv2d, group_norm, ops::silu,
};

use super::UNetConfig;
use crate::LoadSteps;

mod attention;
mod blocks;
mod memory;
mod resnet;
mod time;

use blocks::{DownBlock, MidBlock, UpBlock};
pub(super) use memory::{Machine, working_memory};
use time::Conditioning;

const SAME: Conv2dConfig = Conv2dConfig {
    padding: 1,
    stride: 1,
    dilation: 1,
    groups: 1,
    cudnn_fwd_algo: None,
};

/// The network of a [`DdpmPipeline`](super::DdpmPipeline).
pub(super) struct UNet {
    center_input_sample: bool,
    conditioning: Conditioning,
    conv_in: Conv2d,
    down: Vec<DownBlock>,
    mid: Option<MidBlock>,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// Builds the modules one by one, and lets others run in between.
    pub(super) async fn new(
        config: &UNetConfig,
        vb: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> Result<Self> {
        let channels = &config.block_out_channels;
        let conditioning = Conditioning::new(config, &vb)?;
        let conv_in = conv2d(config.in_channels, channels[0], 3, SAME, vb.pp("conv_in"))?;
        let mut down = Vec::new();
        for index in 0..channels.len() {
            load.next().await;
            down.push(DownBlock::new(
                config,
                index,
                vb.pp("down_blocks").pp(index),
            )?);
        }
        load.next().await;
        let mid = config
            .mid_block
            .then(|| MidBlock::new(config, vb.pp("mid_block")))
            .transpose()?;
        let mut up = Vec::new();
        for index in 0..channels.len() {
            load.next().await;
            up.push(UpBlock::new(config, index, vb.pp("up_blocks").pp(index))?);
        }
        let norm_out = group_norm(
            config.norm_num_groups,
            channels[0],
            config.norm_eps,
            vb.pp("conv_norm_out"),
        )?;
        let conv_out = conv2d(channels[0], config.out_channels, 3, SAME, vb.pp("conv_out"))?;
        let center_input_sample = config.center_input_sample;
        Ok(Self {
            center_input_sample,
            conditioning,
            conv_in,
            down,
            mid,
            up,
            norm_out,
            conv_out,
        })
    }

    /// The number format of the weights.
    pub(super) fn dtype(&self) -> DType {
        self.conv_in.weight().dtype()
    }

    /// Predicts what the scheduler asked for in training: noise, sample or velocity.
    ///
    /// `samples` has the shape `(batch, channels, height, width)`, `classes` the shape `(batch,)`.
    pub(super) fn forward(
        &self,
        samples: &Tensor,
        timestep: f64,
        classes: Option<&Tensor>,
    ) -> Result<Tensor> {
        let samples = samples.to_dtype(self.dtype())?;
        let samples = if self.center_input_sample {
            samples.affine(2.0, -1.0)?
        } else {
            samples
        };
        let time = self
            .conditioning
            .forward(timestep, samples.dim(0)?, classes)?;
        let mut hidden = self.conv_in.forward(&samples)?;
        let mut skips = vec![hidden.clone()];
        for block in &self.down {
            hidden = block.forward(&hidden, &time, &mut skips)?;
        }
        if let Some(mid) = &self.mid {
            hidden = mid.forward(&hidden, &time)?;
        }
        for block in &self.up {
            hidden = block.forward(&hidden, &time, &mut skips)?;
        }
        self.conv_out
            .forward(&silu(&self.norm_out.forward(&hidden)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;
    use futures_lite::future::block_on;

    use super::*;
    use crate::{pipeline::ddpm::DdpmConfig, source::FolderFiles};

    /// One call of the network differs from diffusers' by at most this part of the largest value.
    const TOLERANCE: f32 = 1e-4;

    #[test]
    fn one_call_gives_what_diffusers_gives() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, folder) in [
            ("rgb", "tests/fixtures/rgb"),
            ("grey", "tests/fixtures/grey"),
            ("sprites", "assets/models/sprites"),
        ] {
            let recorded = root.join(format!("tests/fixtures/{name}.parity.safetensors"));
            let recorded =
                candle_core::safetensors::load(recorded, &Device::Cpu).expect("the fixture");
            let folder = root.join(folder);
            let config = DdpmConfig::read(&FolderFiles::new(folder.clone()))
                .expect("a configuration")
                .unet;
            let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
            let weights = candle_core::safetensors::load(weights, &Device::Cpu).expect("weights");
            let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
            let unet = block_on(UNet::new(&config, vb, &LoadSteps::default())).expect("a network");
            let classes = config
                .num_class_embeds
                .map(|count| vec![count as u32 - 1; 2]);
            let classes =
                classes.map(|classes| Tensor::new(classes, &Device::Cpu).expect("classes"));
            let ours = unet
                .forward(&recorded["noise"], 321.0, classes.as_ref())
                .expect("a prediction");
            let difference = largest(&(ours - &recorded["call"]).expect("the same shape"));
            let bound = TOLERANCE * largest(&recorded["call"]);
            assert!(
                difference <= bound,
                "{name}: {difference} is more than {bound}"
            );
        }
    }

    fn largest(tensor: &Tensor) -> f32 {
        let values = tensor.abs().and_then(|tensor| tensor.flatten_all());
        values
            .and_then(|tensor| tensor.max(0))
            .and_then(|tensor| tensor.to_scalar())
            .expect("numbers")
    }
}
