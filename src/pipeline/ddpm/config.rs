//! The configuration of a pipeline: the network's and the scheduler's.

use bevy::prelude::*;

use super::{SchedulerConfig, TimeEmbedding, UNetConfig, layout::Layout, options::Options};
use crate::{LoadError, ModelFiles};

/// Everything that a pipeline's JSON files say.
#[derive(Clone, Debug, Reflect)]
#[non_exhaustive]
pub struct DdpmConfig {
    /// The network.
    pub unet: UNetConfig,
    /// How it was trained, and how to sample from it.
    pub scheduler: SchedulerConfig,
}

impl DdpmConfig {
    /// Reads the index of the pipeline, where there is one, and the two configurations.
    pub(super) fn read(files: &dyn ModelFiles, layout: &Layout) -> Result<Self, LoadError> {
        if let Some(index) = layout.index {
            check_class(Options::read(files, index)?)?;
        }
        let config = Self {
            unet: UNetConfig::read(files, layout.unet_config)?,
            scheduler: SchedulerConfig::read(files, layout.scheduler_config)?,
        };
        config.check_channels(layout)?;
        config.check_times(layout)?;
        Ok(config)
    }

    /// A network that predicts the variance, too, has an output for each.
    fn check_channels(&self, layout: &Layout) -> Result<(), LoadError> {
        let unet = &self.unet;
        let learned = self.scheduler.variance_type.is_learned();
        let expected = unet.in_channels * if learned { 2 } else { 1 };
        if unet.out_channels == expected {
            return Ok(());
        }
        let times = if learned {
            "twice `in_channels`"
        } else {
            "`in_channels`"
        };
        Err(LoadError::UnsupportedOption {
            file: layout.unet_config.into(),
            key: "out_channels".into(),
            value: unet.out_channels.to_string(),
            expected: format!(
                "{expected}, {times}, is expected with this scheduler's `variance_type`"
            ),
        })
    }

    /// Learned time steps are all there are.
    fn check_times(&self, layout: &Layout) -> Result<(), LoadError> {
        let trained = self.scheduler.num_train_timesteps;
        match self.unet.time_embedding {
            TimeEmbedding::Learned(count) if count < trained => Err(LoadError::UnsupportedOption {
                file: layout.unet_config.into(),
                key: "num_train_timesteps".into(),
                value: count.to_string(),
                expected: format!("{trained}, as in the scheduler's configuration, are expected"),
            }),
            _ => Ok(()),
        }
    }
}

fn check_class(mut index: Options) -> Result<(), LoadError> {
    let expected = "`DDPMPipeline` or `DDIMPipeline` is expected";
    let class: String = index.require("_class_name", expected)?;
    match class.as_str() {
        "DDPMPipeline" | "DDIMPipeline" => Ok(()),
        _ => Err(index.unsupported("_class_name", &class.into(), expected)),
    }
}
