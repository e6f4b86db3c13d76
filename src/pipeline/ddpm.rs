//! [`DdpmPipeline`]: unconditional and class-conditional diffusion models, as diffusers saves them.
//!
//! Loads the folder that diffusers' `DDPMPipeline.save_pretrained` writes: `model_index.json`,
//! `unet/config.json`, `unet/diffusion_pytorch_model.safetensors` (whole, in shards, or a variant) and
//! `scheduler/scheduler_config.json`; or the same without folders. Every option that is not implemented is an error
//! that names the key and its value.
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_candle::prelude::*;
//!
//! fn use_another_sampler(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
//!     sprites.settings_mut().sampler = Sampler::Euler; // from the next job on, without a reload
//! }
//!
//! fn vary(sprite: &Image, mut commands: Commands) -> Result<(), InferError> {
//!     let image = Some(StartImage::new(sprite, 0.6)?);
//!     commands.spawn(Infer::<DdpmPipeline>::new(DdpmRequest { image, class: Some(3), ..default() }));
//!     Ok(())
//! }
//! # bevy::ecs::system::assert_is_system(use_another_sampler);
//! ```

use bevy::math::UVec2;
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use futures_lite::future::block_on;

use crate::{DeviceChoice, InferError, LoadError, LoadSteps, ModelFiles, Pipeline, Plan, Steps};

mod config;
mod job;
mod layout;
mod noise;
mod options;
mod output;
mod request;
mod sampler;
mod unet;

pub use config::DdpmConfig;
use job::Job;
use layout::Layout;
use noise::Noise;
pub use output::DdpmOutput;
pub use request::{DdpmRequest, DdpmSettings, Guidance, StartImage};
use sampler::Denoiser;
pub use sampler::{
    BetaSchedule, Clipping, FinalSigma, PredictionType, Sampler, SchedulerConfig, SigmaSpacing,
    SolverType, TimestepSpacing, VarianceType,
};
pub use unet::{
    ActivationFunction, BlockType, ClassEmbedding, Resampling, TimeEmbedding, UNetConfig,
};
use unet::{Machine, UNet, has_kernels, working_memory};

/// The longest side of a sample, and of a picture to start from, in pixels.
const MAX_SIDE: usize = 1 << 13;

/// The most time steps of a training.
const MAX_TIMESTEPS: usize = 100_000;

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
        let layout = Layout::of(files)?;
        Plan::new(DdpmConfig::read(files, &layout)?)
            .weights(files, layout.weights)?
            .check_dtype(check_dtype)
            .check(|config, vb| block_on(UNet::new(&config.unet, vb, &LoadSteps::default())))
    }

    /// Takes the weights over: on the CPU those of convolutions are put in another order where they lie, so tensors that
    /// share their memory must not be used any more. What a load hands out for the last time shares it with nobody.
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
        let mut job = Job::new(self, &request, steps.settings())?;
        for step in 0..job.steps() {
            job.step(step)?;
            let (step, of) = (step as u32 + 1, job.steps() as u32);
            steps.next(step, of, || job.show()).await;
        }
        Ok(job.finish())
    }

    /// What the network needs at its peak, and the samples. Of a request that is refused anyway: nothing.
    fn working_memory(&self, request: &DdpmRequest) -> u64 {
        if request.check(&self.config.unet).is_err() {
            return 0;
        }
        let machine = Machine {
            threads: rayon::current_num_threads(),
            unfolds: !self.device.is_cpu(),
            kernels: has_kernels(self.unet.dtype(), &self.device),
        };
        // With and without the class, in one call.
        let calls = if request.guidance.is_some() { 2 } else { 1 };
        let batch = request.batch.saturating_mul(calls);
        let network = working_memory(&self.config.unet, batch, self.unet.dtype(), machine);
        network.saturating_add(u64::from(request.batch) * Noise::STATE)
    }

    fn sample_size(&self) -> Option<UVec2> {
        let (width, height) = self.config.unet.sample_size;
        Some(UVec2::new(width as u32, height as u32))
    }
}

/// candle 0.11 multiplies no matrices of BF16 on the CPU.
fn check_dtype(dtype: DType, device: DeviceChoice) -> Result<(), LoadError> {
    match (dtype, device) {
        (DType::BF16, DeviceChoice::Cpu) => Err(LoadError::UnsupportedRunDtype {
            dtype,
            expected: "on the CPU choose F32, F16 or F64".into(),
        }),
        _ => Ok(()),
    }
}
