//! What a game asks a diffusion model for.

use std::sync::Arc;

use bevy::prelude::*;
use candle_core::{Device, Tensor};

use super::{Sampler, TimestepSpacing, UNetConfig, noise::Noise};
use crate::InferError;

/// The most numbers in the samples of one request: a gibibyte.
const MAX_NUMBERS: usize = 1 << 28;

/// Asks for pictures. More fields will come: end with `..default()`.
#[derive(Clone, Debug, Reflect)]
#[reflect(Clone, Debug, Default)]
pub struct DdpmRequest {
    /// The class, from 0; needed by class-conditional models, and by no others.
    pub class: Option<u32>,
    /// Where the noise starts: one seed gives one picture.
    pub seed: u64,
    /// Steps from noise to picture.
    pub steps: u32,
    /// The sampler, where it is not the settings'.
    pub sampler: Option<Sampler>,
    /// How many pictures to make at once.
    pub batch: u32,
    /// The noise to start from instead of the seed's, `(batch, channels, height, width)` in one run.
    pub noise: Option<Arc<[f32]>>,
}

impl Default for DdpmRequest {
    fn default() -> Self {
        Self {
            class: None,
            seed: 0,
            steps: 30,
            sampler: None,
            batch: 1,
            noise: None,
        }
    }
}

/// What holds for every request that does not say otherwise.
///
/// More fields will come: end with `..default()`.
#[derive(Clone, Debug, Default, Reflect)]
#[reflect(Clone, Debug, Default)]
pub struct DdpmSettings {
    /// How noise becomes a picture.
    pub sampler: Sampler,
    /// How the steps are spread over the training's, where it is not the model's own way.
    pub timestep_spacing: Option<TimestepSpacing>,
}

impl DdpmRequest {
    /// Refuses what the model cannot serve.
    pub(super) fn check(&self, unet: &UNetConfig) -> Result<(), InferError> {
        self.check_class(unet.num_class_embeds)?;
        let (width, height) = unet.sample_size;
        let numbers = (self.batch as usize).checked_mul(unet.in_channels * height * width);
        let Some(numbers) = numbers.filter(|numbers| (1..=MAX_NUMBERS).contains(numbers)) else {
            let expected = format!("1 picture or more, and at most {MAX_NUMBERS} numbers in all");
            return Err(InferError::invalid_request("batch", self.batch, expected));
        };
        match &self.noise {
            Some(noise) if noise.len() != numbers => {
                let value = format!("{} numbers", noise.len());
                Err(InferError::invalid_request(
                    "noise",
                    value,
                    format!("{numbers} numbers"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_class(&self, classes: Option<usize>) -> Result<(), InferError> {
        let value = self
            .class
            .map_or_else(|| "None".to_owned(), |class| class.to_string());
        match (self.class, classes) {
            (Some(class), Some(count)) if (class as usize) < count => Ok(()),
            (None, None) => Ok(()),
            (Some(_), None) => Err(InferError::invalid_request(
                "class",
                value,
                "None, since it has no classes",
            )),
            (_, Some(count)) => {
                let expected = format!("a class from 0 to {}", count - 1);
                Err(InferError::invalid_request("class", value, expected))
            }
        }
    }

    /// The samples to start from: what was given, or the seed's.
    pub(super) fn start_noise(&self, noise: &mut Noise) -> Vec<f32> {
        self.noise
            .as_ref()
            .map_or_else(|| noise.draw(), |given| given.to_vec())
    }

    /// The class of each sample of the batch.
    pub(super) fn class_tensor(&self, device: &Device) -> candle_core::Result<Option<Tensor>> {
        self.class
            .map(|class| {
                Tensor::from_vec(
                    vec![class; self.batch as usize],
                    self.batch as usize,
                    device,
                )
            })
            .transpose()
    }
}
