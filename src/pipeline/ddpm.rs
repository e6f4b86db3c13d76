//! [`DdpmPipeline`]: unconditional and class-conditional diffusion models, as diffusers saves them.
//!
//! Loads the folder that diffusers' `DDPMPipeline.save_pretrained` writes: `model_index.json`,
//! `unet/config.json`, `unet/diffusion_pytorch_model.safetensors` and
//! `scheduler/scheduler_config.json`. Every option that is not implemented is an error that names the
//! key and its value.
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_candle::prelude::*;
//!
//! fn use_another_sampler(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
//!     sprites.settings_mut().sampler = Sampler::Ddpm; // from the next job on, without a reload
//! }
//! # bevy::ecs::system::assert_is_system(use_another_sampler);
//! ```

use bevy::math::UVec2;
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use futures_lite::future::block_on;

use crate::{InferError, LoadError, LoadSteps, ModelFiles, Pipeline, Plan, Steps};

mod config;
mod noise;
mod options;
mod output;
mod request;
mod sampler;
mod unet;

pub use config::{DdpmConfig, UNetConfig};
use noise::Noise;
pub use output::DdpmOutput;
pub use request::{DdpmRequest, DdpmSettings};
use sampler::Denoiser;
pub use sampler::{
    BetaSchedule, PredictionType, Sampler, SchedulerConfig, TimestepSpacing, VarianceType,
};
use unet::{Machine, UNet, working_memory};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A diffusion model that turns noise into pictures, step by step (Ho et al. 2020,
/// <https://arxiv.org/abs/2006.11239>).
pub struct DdpmPipeline {
    config: DdpmConfig,
    unet: UNet,
    device: Device,
}

impl Pipeline for DdpmPipeline {
    type Config = DdpmConfig;
    type Settings = DdpmSettings;
    type Request = DdpmRequest;
    type Partial = DdpmOutput;
    type Output = DdpmOutput;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<DdpmConfig>, LoadError> {
        Plan::new(DdpmConfig::read(files)?)
            .weights(files, UNET)?
            .check(|config, vb| block_on(UNet::new(&config.unet, vb, &LoadSteps::default())))
    }

    async fn build(
        config: DdpmConfig,
        weights: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let device = weights.device().clone();
        let unet = UNet::new(&config.unet, weights, load).await?;
        Ok(Self {
            config,
            unet,
            device,
        })
    }

    async fn infer(
        &self,
        request: DdpmRequest,
        steps: Steps<Self>,
    ) -> Result<DdpmOutput, InferError> {
        let unet = &self.config.unet;
        request.check(unet)?;
        let shape = [
            request.batch as usize,
            unet.in_channels,
            unet.sample_size.1,
            unet.sample_size.0,
        ];
        let mut noise = Noise::new(request.seed, shape);
        let mut samples = request.start_noise(&mut noise);
        let mut denoiser = self.denoiser(&request, steps.settings())?;
        let classes = request.class_tensor(&self.device)?;
        let of = denoiser.timesteps().len() as u32;
        for step in 0..denoiser.timesteps().len() {
            let output = self.predict(
                &samples,
                shape,
                denoiser.timesteps()[step],
                classes.as_ref(),
            )?;
            denoiser.step(step, &mut samples, &output, || noise.draw());
            steps
                .next(step as u32 + 1, of, || {
                    DdpmOutput::new(shape, samples.clone())
                })
                .await;
        }
        Ok(DdpmOutput::new(shape, samples))
    }

    /// What the network needs at its peak, and the samples. Of a request that is refused anyway: nothing.
    fn working_memory(&self, request: &DdpmRequest) -> u64 {
        if request.check(&self.config.unet).is_err() {
            return 0;
        }
        let machine = Machine {
            threads: rayon::current_num_threads(),
            unfolds: !self.device.is_cpu(),
        };
        working_memory(&self.config.unet, request.batch, self.unet.dtype(), machine)
    }

    fn sample_size(&self) -> Option<UVec2> {
        let (width, height) = self.config.unet.sample_size;
        Some(UVec2::new(width as u32, height as u32))
    }
}

impl DdpmPipeline {
    fn denoiser(
        &self,
        request: &DdpmRequest,
        settings: &DdpmSettings,
    ) -> Result<Denoiser, InferError> {
        let mut scheduler = self.config.scheduler.clone();
        if let Some(spacing) = settings.timestep_spacing {
            scheduler.timestep_spacing = spacing;
        }
        Denoiser::new(
            &scheduler,
            request.sampler.unwrap_or(settings.sampler),
            request.steps,
        )
    }

    /// Calls the network once: what the model sees in the noisy samples, `(batch, channels, height,
    /// width)` in one run of numbers, at one of the training's time steps.
    fn predict(
        &self,
        samples: &[f32],
        shape: [usize; 4],
        timestep: usize,
        classes: Option<&Tensor>,
    ) -> Result<Vec<f32>, InferError> {
        let input = Tensor::from_slice(samples, shape.as_slice(), &self.device)?;
        let output = self.unet.forward(&input, timestep as f64, classes)?;
        Ok(output
            .to_dtype(candle_core::DType::F32)?
            .flatten_all()?
            .to_vec1()?)
    }
}
