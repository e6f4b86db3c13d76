//! What a game asks a diffusion model for.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Sampler, TimestepSpacing, UNetConfig, noise::Noise};
use crate::InferError;

/// Asks for pictures. More fields will come: end with `..default()`.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, Default)]
pub struct DdpmSettings {
    /// How noise becomes a picture.
    pub sampler: Sampler,
    /// How the steps are spread over the training's, where it is not the model's own way.
    pub timestep_spacing: Option<TimestepSpacing>,
}

impl DdpmRequest {
    /// Refuses what the model cannot serve.
    pub(super) fn check(&self, unet: &UNetConfig) -> Result<(), InferError> {
        let classes = unet.num_class_embeds;
        let refuse = |field, value: String, expected: String| {
            Err(InferError::InvalidRequest {
                field,
                value,
                expected,
            })
        };
        match (self.class, classes) {
            (None, Some(count)) => {
                return refuse(
                    "class",
                    "None".into(),
                    format!("a class from 0 to {}", count - 1),
                );
            }
            (Some(class), None) => {
                return refuse("class", class.to_string(), "none: it has no classes".into());
            }
            (Some(class), Some(count)) if class as usize >= count => {
                return refuse(
                    "class",
                    class.to_string(),
                    format!("a class from 0 to {}", count - 1),
                );
            }
            _ => {}
        }
        if self.batch == 0 {
            return refuse("batch", "0".into(), "at least one picture".into());
        }
        let (width, height) = unet.sample_size;
        let expected = self.batch as usize * unet.in_channels * height * width;
        match &self.noise {
            Some(noise) if noise.len() != expected => refuse(
                "noise",
                format!("{} numbers", noise.len()),
                format!("{expected} numbers"),
            ),
            _ => Ok(()),
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
