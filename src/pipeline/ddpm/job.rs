//! [`Job`]: one request at work, step by step.

use candle_core::{DType, Tensor};

use super::{
    DdpmOutput, DdpmPipeline, DdpmRequest, DdpmSettings, Denoiser, Guidance, Noise,
    SchedulerConfig, TimeEmbedding, UNetConfig, sampler::Prediction, unet::Classes,
};
use crate::InferError;

/// A request between two steps.
pub(super) struct Job<'a> {
    pipeline: &'a DdpmPipeline,
    shape: [usize; 4],
    denoiser: Denoiser,
    noise: Noise,
    classes: Classes,
    guidance: Option<Guidance>,
    samples: Vec<f32>,
    /// Steps that are done.
    done: usize,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        pipeline: &'a DdpmPipeline,
        request: &DdpmRequest,
        settings: &DdpmSettings,
    ) -> Result<Self, InferError> {
        let unet = &pipeline.config.unet;
        request.check(unet)?;
        let (width, height) = unet.sample_size;
        let shape = [request.batch as usize, unet.in_channels, height, width];
        let denoiser = denoiser(pipeline, request, settings)?;
        let mut noise = Noise::new(request.seed, shape);
        let pictures = request.image.as_ref().map(|image| image.samples(shape));
        let samples = denoiser.start(request.start_noise(&mut noise), pictures.as_deref());
        Ok(Self {
            pipeline,
            shape,
            denoiser,
            noise,
            classes: request.classes(&pipeline.device)?,
            guidance: request.guidance,
            samples,
            done: 0,
        })
    }

    pub(super) fn steps(&self) -> usize {
        self.denoiser.timesteps().len()
    }

    pub(super) fn step(&mut self, step: usize) -> Result<(), InferError> {
        let prediction = self.predict(step)?;
        let noise = || self.noise.draw();
        self.denoiser
            .step(step, &mut self.samples, &prediction, noise);
        self.done = step + 1;
        Ok(())
    }

    /// The samples as a person can see them.
    pub(super) fn show(&self) -> DdpmOutput {
        let samples = if self.done < self.steps() {
            self.denoiser.view(self.done, &self.samples).into_owned()
        } else {
            self.samples.clone()
        };
        DdpmOutput::new(self.shape, samples)
    }

    /// What is beyond the range of pictures is cut off, as diffusers' pipelines do it.
    pub(super) fn finish(self) -> DdpmOutput {
        let samples = self.samples.into_iter();
        let samples = samples.map(|sample| sample.clamp(-1.0, 1.0));
        DdpmOutput::new(self.shape, samples.collect())
    }

    /// Calls the network once: what the model sees in the noisy samples, `(batch, channels, height,
    /// width)` in one run of numbers, at one of the training's time steps.
    fn predict(&self, step: usize) -> Result<Prediction, InferError> {
        let DdpmPipeline { unet, device, .. } = self.pipeline;
        let view = self.denoiser.view(step, &self.samples);
        let input = Tensor::from_slice(&view, &self.shape, device)?;
        let timestep = self.denoiser.timesteps()[step];
        let (Some(guidance), Classes::Numbers(numbers)) = (&self.guidance, &self.classes) else {
            let output = unet.forward(&input, timestep, &self.classes)?;
            return self.split(&output.to_dtype(DType::F32)?);
        };
        // Both in one call: without the class first.
        let without = numbers.iter().map(|_| guidance.null_class);
        let numbers = without.chain(numbers.iter().copied()).collect();
        let both = Tensor::cat(&[&input, &input], 0)?;
        let output = unet.forward(&both, timestep, &Classes::Numbers(numbers))?;
        let halves = output.to_dtype(DType::F32)?.chunk(2, 0)?;
        let (without, mut with) = (self.split(&halves[0])?, self.split(&halves[1])?);
        for (with, without) in with.output.iter_mut().zip(without.output) {
            *with = without + guidance.scale * (*with - without);
        }
        Ok(with)
    }

    /// Some networks predict the variance, too, in channels of its own.
    fn split(&self, output: &Tensor) -> Result<Prediction, InferError> {
        let channels = self.shape[1];
        let numbers = |first: usize| -> Result<Vec<f32>, InferError> {
            let part = output.narrow(1, first, channels)?;
            Ok(part.flatten_all()?.to_vec1()?)
        };
        let has_variance = output.dim(1)? == 2 * channels;
        Ok(Prediction {
            output: numbers(0)?,
            variance: has_variance.then(|| numbers(channels)).transpose()?,
        })
    }
}

fn denoiser(
    pipeline: &DdpmPipeline,
    request: &DdpmRequest,
    settings: &DdpmSettings,
) -> Result<Denoiser, InferError> {
    let unet = &pipeline.config.unet;
    let mut scheduler = pipeline.config.scheduler.clone();
    scheduler.timestep_spacing = settings.timestep_spacing.or(scheduler.timestep_spacing);
    let denoiser = Denoiser::new(
        &scheduler,
        request.sampler.unwrap_or(settings.sampler),
        request.steps,
        unet.sample_len(),
        request.image.as_ref().map(|image| image.strength()),
    )?;
    check_times(unet, &scheduler, denoiser.timesteps())?;
    Ok(denoiser)
}

/// A Fourier embedding takes the logarithm of the time step.
fn check_times(
    unet: &UNetConfig,
    scheduler: &SchedulerConfig,
    timesteps: &[f64],
) -> Result<(), InferError> {
    let has_logarithms = timesteps.iter().all(|timestep| *timestep > 0.0);
    if unet.time_embedding != TimeEmbedding::Fourier || has_logarithms {
        return Ok(());
    }
    let value = format!("{:?}", scheduler.timestep_spacing);
    let expected = "a spacing without 0, such as `Trailing`: it takes the logarithm of time";
    Err(InferError::invalid_request(
        "timestep_spacing",
        value,
        expected,
    ))
}
