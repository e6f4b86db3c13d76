//! The network: diffusers' `UNet2DModel`.
//!
//! A picture goes down through blocks that halve it, through the middle, and up again, where each block
//! also sees what its counterpart on the way down had. Every residual block is told the time step.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use crate::LoadSteps;

mod activation;
mod attention;
mod blocks;
mod config;
mod conv;
mod kernels;
mod memory;
mod norm;
mod resample;
mod resnet;
mod time;

use blocks::{DownBlock, MidBlock, UpBlock};
pub use config::{
    ActivationFunction, BlockType, ClassEmbedding, Resampling, TimeEmbedding, UNetConfig,
};
use conv::{Conv, Shape};
pub(super) use kernels::has_kernels;
pub(super) use memory::{Machine, working_memory};
use norm::Norm;
pub(super) use time::Classes;
use time::Conditioning;

/// The network of a [`DdpmPipeline`](super::DdpmPipeline).
pub(super) struct UNet {
    center_input_sample: bool,
    /// What it gives is divided by the time step.
    divides_by_time: bool,
    conditioning: Conditioning,
    conv_in: Conv,
    down: Vec<DownBlock>,
    mid: Option<MidBlock>,
    up: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: Conv,
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
        let conv_in = Conv::new(
            Shape::same(config.in_channels, channels[0]),
            vb.pp("conv_in"),
        )?;
        let mut down = Vec::new();
        for index in 0..channels.len() {
            load.next().await;
            let vb = vb.pp("down_blocks").pp(index);
            down.push(DownBlock::new(config, index, vb)?);
        }
        load.next().await;
        let mid = || MidBlock::new(config, vb.pp("mid_block"));
        let mid = config.mid_block.then(mid).transpose()?;
        let mut up = Vec::new();
        for index in 0..channels.len() {
            load.next().await;
            up.push(UpBlock::new(config, index, vb.pp("up_blocks").pp(index))?);
        }
        let (groups, eps) = (config.groups(channels[0]), config.norm_eps);
        let norm_out = Norm::new(groups, channels[0], eps, vb.pp("conv_norm_out"))?;
        let conv_out = Conv::new(
            Shape::same(channels[0], config.out_channels),
            vb.pp("conv_out"),
        )?;
        Ok(Self {
            center_input_sample: config.center_input_sample,
            divides_by_time: config.time_embedding == TimeEmbedding::Fourier,
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
        self.conv_in.dtype()
    }

    /// Predicts what the scheduler asked for in training: noise, sample or velocity.
    ///
    /// `samples` has the shape `(batch, channels, height, width)`.
    pub(super) fn forward(
        &self,
        samples: &Tensor,
        timestep: f64,
        classes: &Classes,
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
        let (hidden, picture) = self.through_blocks(samples, &time)?;
        let silu = Some(ActivationFunction::Silu);
        let hidden = self.norm_out.forward(&hidden, silu)?;
        let output = self.conv_out.forward(&hidden)?;
        let output = match picture {
            Some(picture) => (output + picture)?,
            None => output,
        };
        if self.divides_by_time {
            output / timestep
        } else {
            Ok(output)
        }
    }

    /// Returns what the last block gives, and the picture that blocks with a skip have painted.
    fn through_blocks(&self, samples: Tensor, time: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let mut hidden = self.conv_in.forward(&samples)?;
        let mut skips = vec![hidden.clone()];
        let mut small = samples;
        for block in &self.down {
            hidden = block.forward(&hidden, time, &mut skips, &mut small)?;
        }
        drop(small);
        if let Some(mid) = &self.mid {
            hidden = mid.forward(&hidden, time)?;
        }
        let mut picture = None;
        for block in &self.up {
            hidden = block.forward(&hidden, time, &mut skips, &mut picture)?;
        }
        Ok((hidden, picture))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use candle_core::Device;

    use super::*;
    use crate::{
        ModelFiles, ModelSource, Pipeline, Plan,
        pipeline::ddpm::{DdpmConfig, DdpmPipeline},
        source::FolderFiles,
    };

    /// One call of the network differs from diffusers' by at most this part of the largest value.
    const TOLERANCE: f32 = 1e-4;

    /// All networks, with the class that they were asked for.
    const MODELS: [(&str, Option<u32>); 11] = [
        ("sprites", Some(7)),
        ("rgb", None),
        ("grey", Some(2)),
        ("cifar", None),
        ("celebahq", None),
        ("resnet", None),
        ("ncsnpp", None),
        ("rgba", None),
        ("timestep", Some(5)),
        ("identity", None),
        ("learned", None),
    ];

    fn folder(name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match name {
            "sprites" => root.join("assets/models/sprites"),
            _ => root.join("tests/fixtures").join(name),
        }
    }

    /// Reads a network as a load does, but at once.
    fn read(name: &str) -> (DdpmConfig, UNet) {
        let folder = folder(name);
        let variant = (name == "rgba").then_some("fp16");
        let source = variant
            .into_iter()
            .fold(ModelSource::from(folder.clone()), ModelSource::variant);
        let files = source.open(&folder);
        let plan: Plan<DdpmConfig> = DdpmPipeline::plan(&*files).expect("a plan");
        let (config, tensors) = plan.into_parts();
        let mut weights = std::collections::HashMap::new();
        let names = FolderFiles::new(folder.clone()).names().expect("a folder");
        for file in names {
            if file.ends_with(".safetensors") {
                let tensors = candle_core::safetensors::load(folder.join(file), &Device::Cpu);
                weights.extend(tensors.expect("weights"));
            }
        }
        assert_eq!(weights.len(), tensors.len(), "{name}: every tensor is used");
        let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let unet =
            futures_lite::future::block_on(UNet::new(&config.unet, vb, &LoadSteps::default()));
        (config, unet.expect("a network"))
    }

    #[test]
    fn one_call_gives_what_diffusers_gives() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, class) in MODELS {
            let recorded = root.join(format!("tests/fixtures/{name}.parity.safetensors"));
            let recorded =
                candle_core::safetensors::load(recorded, &Device::Cpu).expect("the fixture");
            let (config, unet) = read(name);
            let classes = match (class, recorded.get("class_embedding")) {
                (Some(class), _) => Classes::Numbers(vec![class; 2]),
                (None, Some(vector)) => {
                    let rows = vector.unsqueeze(0).and_then(|row| row.repeat((2, 1)));
                    Classes::Vectors(rows.expect("rows"))
                }
                (None, None) => Classes::None,
            };
            let ours = unet
                .forward(&recorded["noise"], 321.0, &classes)
                .expect("a prediction");
            assert_eq!(ours.dim(1).expect("channels"), config.unet.out_channels);
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
