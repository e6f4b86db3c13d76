//! What a game asks a diffusion model for.

use std::sync::Arc;

use bevy::prelude::*;
use candle_core::{Device, Tensor};

use super::{ClassEmbedding, Sampler, TimestepSpacing, UNetConfig, noise::Noise, unet::Classes};
use crate::InferError;

mod start_image;

pub use start_image::StartImage;

/// The most numbers in the samples of one request: a gibibyte.
const MAX_NUMBERS: usize = 1 << 28;

/// Asks for pictures. More fields will come: end with `..default()`.
///
/// A value that the model cannot serve ends the job with [`InferError::InvalidRequest`], which names the field, the value
/// and what the model needs.
///
/// ```
/// use bevy_candle::prelude::*;
/// # use bevy::prelude::default;
///
/// let request = DdpmRequest { class: Some(3), batch: 4, ..default() };
/// assert_eq!((request.steps, request.seed), (30, 0));
/// ```
#[derive(Clone, Debug, Reflect)]
#[reflect(Clone, Debug, Default)]
pub struct DdpmRequest {
    /// The class (default [`None`]), from 0 to below the number of the model's classes; any number where classes are
    /// embedded as time steps are ([`ClassEmbedding::Timestep`]). Needed by models whose classes are numbers, and
    /// refused by all others.
    pub class: Option<u32>,
    /// The class as a vector of `time_embedding_dim` numbers (default [`None`]). Needed by models whose classes are vectors
    /// ([`ClassEmbedding::Identity`]), and refused by all others.
    pub class_embedding: Option<Arc<[f32]>>,
    /// Follows the class more closely than the model does by itself (default [`None`]). Refused by models whose classes
    /// are not numbers.
    pub guidance: Option<Guidance>,
    /// Where the noise starts (default 0): one seed gives one picture.
    pub seed: u64,
    /// Steps from noise to picture (default 30), 1 to the number of steps in the model's training, often 1,000. Some
    /// schedules refuse the last few below that.
    pub steps: u32,
    /// The sampler; [`None`], the default, is that of the [`DdpmSettings`].
    pub sampler: Option<Sampler>,
    /// How many pictures to make at once (default 1), 1 to as many as have 2²⁸ numbers together: a gibibyte.
    pub batch: u32,
    /// The noise to start from, `(batch, channels, height, width)` in one run, as many numbers as that says; [`None`], the
    /// default, is the seed's.
    pub noise: Option<Arc<[f32]>>,
    /// The picture to start from, of the model's size; [`None`], the default, is mere noise.
    pub image: Option<StartImage>,
}

impl Default for DdpmRequest {
    fn default() -> Self {
        Self {
            class: None,
            class_embedding: None,
            guidance: None,
            seed: 0,
            steps: 30,
            sampler: None,
            batch: 1,
            noise: None,
            image: None,
        }
    }
}

/// Classifier-free guidance (Ho and Salimans 2022, <https://arxiv.org/abs/2207.12598>), for models that were trained
/// with a class that stands for none. A step takes twice as long.
#[derive(Clone, Copy, PartialEq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Guidance {
    /// How closely the class is followed, any finite number: 1 is as without guidance, 3 to 8 are usual.
    pub scale: f32,
    /// The class that stands for none, often the last; one of the model's classes.
    pub null_class: u32,
}

impl Guidance {
    /// Follows the class by `scale`, away from the class that stands for none.
    ///
    /// ```
    /// use bevy_candle::prelude::*;
    ///
    /// let request = DdpmRequest {
    ///     class: Some(3),
    ///     guidance: Some(Guidance::new(4.0, 10)),
    ///     ..Default::default()
    /// };
    /// # assert_eq!(request.guidance.map(|guidance| guidance.null_class), Some(10));
    /// ```
    pub const fn new(scale: f32, null_class: u32) -> Self {
        Self { scale, null_class }
    }
}

/// What holds for every request that does not say otherwise.
///
/// More fields will come: end with `..default()`.
#[derive(Clone, Debug, Default, Reflect)]
#[reflect(Clone, Debug, Default)]
pub struct DdpmSettings {
    /// How noise becomes a picture (default `Sampler::Ddim { eta: 0.0 }`).
    pub sampler: Sampler,
    /// How the steps are spread over the training's; [`None`], the default, is the model's own way.
    pub timestep_spacing: Option<TimestepSpacing>,
}

impl DdpmRequest {
    /// Refuses what the model cannot serve.
    pub(super) fn check(&self, unet: &UNetConfig) -> Result<(), InferError> {
        self.check_class(unet)?;
        self.check_guidance(unet)?;
        let numbers = (self.batch as usize).checked_mul(unet.sample_len());
        let Some(numbers) = numbers.filter(|numbers| (1..=MAX_NUMBERS).contains(numbers)) else {
            let expected = format!("1 picture or more, and at most {MAX_NUMBERS} numbers in all");
            return Err(InferError::invalid_request("batch", self.batch, expected));
        };
        if let Some(image) = &self.image {
            image.check(unet)?;
        }
        match &self.noise {
            Some(noise) if noise.len() != numbers => {
                let (value, expected) = (
                    format!("{} numbers", noise.len()),
                    format!("{numbers} numbers"),
                );
                Err(InferError::invalid_request("noise", value, expected))
            }
            _ => Ok(()),
        }
    }

    fn check_class(&self, unet: &UNetConfig) -> Result<(), InferError> {
        self.check_class_embedding(unet)?;
        let expected = match (self.class, unet.class_embedding) {
            (Some(class), Some(ClassEmbedding::Learned(count))) if (class as usize) < count => {
                return Ok(());
            }
            (Some(_), Some(ClassEmbedding::Timestep))
            | (None, None | Some(ClassEmbedding::Identity)) => return Ok(()),
            (_, None) => "None, since it has no classes".into(),
            (_, Some(ClassEmbedding::Identity)) => "None, since its classes are vectors".into(),
            (_, Some(ClassEmbedding::Timestep)) => "a class".into(),
            (_, Some(ClassEmbedding::Learned(count))) => format!("a class from 0 to {}", count - 1),
        };
        let value = self
            .class
            .map_or_else(|| "None".into(), |class| class.to_string());
        Err(InferError::invalid_request("class", value, expected))
    }

    fn check_class_embedding(&self, unet: &UNetConfig) -> Result<(), InferError> {
        let is_vector = unet.class_embedding == Some(ClassEmbedding::Identity);
        let expected = is_vector.then_some(unet.time_embedding_dim);
        let found = self.class_embedding.as_ref().map(|vector| vector.len());
        if found == expected {
            return Ok(());
        }
        let text = |length: Option<usize>| {
            length.map_or_else(|| "None".to_owned(), |length| format!("{length} numbers"))
        };
        Err(InferError::invalid_request(
            "class_embedding",
            text(found),
            text(expected),
        ))
    }

    fn check_guidance(&self, unet: &UNetConfig) -> Result<(), InferError> {
        let Some(Guidance { scale, null_class }) = self.guidance else {
            return Ok(());
        };
        let refuse = |value: String, expected: &str| {
            Err(InferError::invalid_request("guidance", value, expected))
        };
        if !scale.is_finite() {
            return refuse(scale.to_string(), "a finite scale");
        }
        match unet.class_embedding {
            Some(ClassEmbedding::Learned(count)) if null_class as usize >= count => {
                let expected = format!("a null class from 0 to {}", count - 1);
                refuse(null_class.to_string(), &expected)
            }
            Some(ClassEmbedding::Learned(_) | ClassEmbedding::Timestep) => Ok(()),
            _ => refuse(scale.to_string(), "None, since its classes are not numbers"),
        }
    }

    /// The noise to start from: what was given, or the seed's.
    pub(super) fn start_noise(&self, noise: &mut Noise) -> Vec<f32> {
        self.noise
            .as_ref()
            .map_or_else(|| noise.draw(), |given| given.to_vec())
    }

    /// The class of each sample of the batch.
    pub(super) fn classes(&self, device: &Device) -> candle_core::Result<Classes> {
        let batch = self.batch as usize;
        Ok(match (self.class, &self.class_embedding) {
            (Some(class), _) => Classes::Numbers(vec![class; batch]),
            (None, Some(vector)) => {
                let row = Tensor::from_slice(vector, (1, vector.len()), device)?;
                Classes::Vectors(row.repeat((batch, 1))?)
            }
            (None, None) => Classes::None,
        })
    }
}
