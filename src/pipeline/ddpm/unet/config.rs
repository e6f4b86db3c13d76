//! The configuration of the network.

use bevy::prelude::*;

use super::super::options::Options;
use crate::{LoadError, ModelFiles};

mod blocks;
mod check;
mod take;

use blocks::quarter;
pub use blocks::{BlockType, Resampling};

/// How the network is told the time step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum TimeEmbedding {
    /// Sines and cosines of it (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
    Positional,
    /// Random frequencies of its logarithm, which are saved with the weights (Song et al. 2021,
    /// <https://arxiv.org/abs/2011.13456>). What the network gives is divided by the time step.
    Fourier,
    /// A learned vector for each of so many time steps. One between two is rounded.
    Learned(usize),
}

/// How the network is told the class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum ClassEmbedding {
    /// A learned vector for each of so many classes.
    Learned(usize),
    /// The class is a number, embedded as the time step is.
    Timestep,
    /// The vector itself, as long as the time embedding; see
    /// [`DdpmRequest::class_embedding`](crate::DdpmRequest::class_embedding).
    Identity,
}

/// What makes a network more than linear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum ActivationFunction {
    /// `silu`, also called `swish`.
    Silu,
    /// `mish`.
    Mish,
    /// `gelu`, the exact one.
    Gelu,
    /// `relu`.
    Relu,
}

/// The configuration of a `UNet2DModel` of diffusers.
#[derive(Clone, Debug, Reflect)]
#[non_exhaustive]
pub struct UNetConfig {
    /// Width and height of the samples, in pixels.
    pub sample_size: (usize, usize),
    /// Channels of the samples.
    pub in_channels: usize,
    /// Channels of what the network predicts.
    pub out_channels: usize,
    /// Maps samples from 0..=1 to -1..=1 first.
    pub center_input_sample: bool,
    /// How it is told the time step.
    pub time_embedding: TimeEmbedding,
    /// Channels of the time embedding.
    pub time_embedding_dim: usize,
    /// Shifts the frequencies of the time embedding.
    pub freq_shift: f64,
    /// Puts the cosines before the sines.
    pub flip_sin_to_cos: bool,
    /// The blocks on the way down.
    pub down_blocks: Vec<BlockType>,
    /// The blocks on the way up.
    pub up_blocks: Vec<BlockType>,
    /// Whether there is a block between the way down and the way up.
    pub mid_block: bool,
    /// Channels of each block.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Divides the output of the middle's blocks.
    pub mid_block_scale_factor: f64,
    /// Zero rows around a picture before it is halved; 0 pads right and below only.
    pub downsample_padding: usize,
    /// How blocks with attention halve a picture.
    pub downsample_type: Resampling,
    /// How blocks with attention double a picture.
    pub upsample_type: Resampling,
    /// What makes the residual blocks more than linear.
    pub act_fn: ActivationFunction,
    /// Channels of one attention head; [`None`] is a single head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms; [`None`] is a quarter of the channels, at most 32, and only for blocks with a skip.
    pub norm_num_groups: Option<usize>,
    /// Groups of the norm before the middle's attention; [`None`] is those of the other norms, or no norm where time
    /// scales and shifts.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the variance in norms.
    pub norm_eps: f64,
    /// Whether time scales and shifts, or is just added.
    pub time_scale_shift: bool,
    /// Whether the middle has attention.
    pub add_attention: bool,
    /// How it is told the class; [`None`] is an unconditional model.
    pub class_embedding: Option<ClassEmbedding>,
}

impl UNetConfig {
    pub(in super::super) fn read(files: &dyn ModelFiles, file: &str) -> Result<Self, LoadError> {
        let mut options = Options::read(files, file)?;
        let config = Self::take(&mut options)?;
        options.finish()?;
        Ok(config)
    }

    /// Numbers in one sample.
    pub(in super::super) fn sample_len(&self) -> usize {
        self.in_channels * self.sample_size.0 * self.sample_size.1
    }

    /// Numbers that stand for the time step, before they are embedded.
    pub(super) fn time_inputs(&self) -> usize {
        match self.time_embedding {
            TimeEmbedding::Fourier => 2 * self.block_out_channels[0],
            _ => self.block_out_channels[0],
        }
    }

    /// What the layers of a block on the way down get and give.
    pub(super) fn down_layers(&self, index: usize) -> impl Iterator<Item = (usize, usize)> {
        let inputs = self.block_out_channels[index.saturating_sub(1)];
        let outputs = self.block_out_channels[index];
        let layers = 0..self.layers_per_block;
        layers.map(move |layer| (if layer == 0 { inputs } else { outputs }, outputs))
    }

    /// Groups of a norm over so many channels, in the middle and at the end.
    pub(super) fn groups(&self, channels: usize) -> usize {
        self.norm_num_groups.unwrap_or_else(|| quarter(channels))
    }

    /// Whether a block halves what it has worked on by a residual block.
    pub(super) fn halves_by_resnet(&self, block: BlockType) -> bool {
        block.resamples_by_resnet(self.downsample_type)
    }

    /// Whether a block doubles what it has worked on by a residual block.
    pub(super) fn doubles_by_resnet(&self, block: BlockType) -> bool {
        block.resamples_by_resnet(self.upsample_type)
    }

    /// What the layers of a block on the way up get: from below, and from the way down; and what they give.
    pub(super) fn up_layers(&self, index: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let channels = &self.block_out_channels;
        let at = |index: usize| channels[channels.len() - 1 - index];
        let outputs = at(index);
        let previous = at(index.saturating_sub(1));
        let next = at((index + 1).min(channels.len() - 1));
        let layers = self.layers_per_block;
        (0..=layers).map(move |layer| {
            let below = if layer == 0 { previous } else { outputs };
            let skip = if layer == layers { next } else { outputs };
            (below, skip, outputs)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::MemoryFiles;

    fn read(changes: &[(&str, Value)]) -> Result<UNetConfig, LoadError> {
        let mut json = json!({
            "_class_name": "UNet2DModel",
            "sample_size": 32,
            "block_out_channels": [32, 64],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        });
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        let file = ("config.json", json.to_string().into_bytes());
        UNetConfig::read(&MemoryFiles::new([file]), "config.json")
    }

    #[test]
    fn missing_keys_have_the_defaults_of_diffusers() {
        let config = read(&[]).expect("a configuration");
        assert_eq!(config.layers_per_block, 2);
        assert_eq!(config.attention_head_dim, Some(8));
        assert_eq!(config.time_embedding_dim, 128);
        assert_eq!(config.down_blocks, [BlockType::Plain, BlockType::Attention]);
        assert_eq!(config.up_blocks, [BlockType::Attention, BlockType::Plain]);
        assert_eq!(config.time_embedding, TimeEmbedding::Positional);
        assert_eq!(config.class_embedding, None);
    }

    #[test]
    fn a_pair_is_height_and_width() {
        let config = read(&[("sample_size", json!([16, 24]))]).expect("a configuration");
        assert_eq!(config.sample_size, (24, 16));
    }

    #[test]
    fn classes_and_times_are_embedded_as_they_say() {
        let config = read(&[
            ("time_embedding_type", "learned".into()),
            ("num_train_timesteps", 100.into()),
            ("class_embed_type", "timestep".into()),
        ]);
        let config = config.expect("a configuration");
        assert_eq!(config.time_embedding, TimeEmbedding::Learned(100));
        assert_eq!(config.class_embedding, Some(ClassEmbedding::Timestep));
        let config = read(&[("num_class_embeds", 3.into())]).expect("a configuration");
        assert_eq!(config.class_embedding, Some(ClassEmbedding::Learned(3)));
        let error = read(&[("time_embedding_type", "learned".into())]).expect_err("how many?");
        assert!(error.to_string().contains("num_train_timesteps"), "{error}");
    }

    #[test]
    fn what_is_not_implemented_is_named_with_its_value() {
        let skip = json!(["SkipDownBlock2D", "DownBlock2D"]);
        let refused = [
            ("time_embedding_type", "sinusoidal".into()),
            (
                "down_block_types",
                json!(["DownBlock2D", "CrossAttnDownBlock2D"]),
            ),
            ("down_block_types", skip),
            ("class_embed_type", "projection".into()),
            ("act_fn", "tanh".into()),
            ("downsample_type", "fir".into()),
            ("downsample_padding", 2.into()),
            ("resnet_time_scale_shift", "spatial".into()),
            ("mid_block_type", "UNetMidBlock2DCrossAttn".into()),
            ("norm_num_groups", 7.into()),
            ("norm_eps", (-1).into()),
            ("mid_block_scale_factor", 0.into()),
            ("attention_head_dim", 0.into()),
            ("block_out_channels", json!([0, 64])),
            ("sample_size", Value::Null),
            ("sample_size", 33.into()),
            ("sample_size", 1_000_000.into()),
            ("block_out_channels", json!([3_200_000_000_000_u64, 64])),
            ("attn_norm_num_groups", 0.into()),
            ("attn_norm_num_groups", 7.into()),
            ("norm_num_groups", Value::Null),
            ("attention_head_dim", 7.into()),
            ("_class_name", "UNet2DConditionModel".into()),
            ("num_class_embeds", 0.into()),
            ("freq_shift", 16.into()),
            ("brand_new_key", true.into()),
        ];
        for (key, value) in refused {
            let error = read(&[(key, value)]).expect_err(key);
            assert!(
                matches!(&error, LoadError::UnsupportedOption { key: found, .. } if found == key),
                "{error}"
            );
        }
    }

    #[test]
    fn heads_only_count_where_there_is_attention() {
        let plain = [
            ("block_out_channels", json!([12, 20])),
            ("norm_num_groups", 4.into()),
            ("down_block_types", json!(["DownBlock2D", "DownBlock2D"])),
            ("up_block_types", json!(["UpBlock2D", "UpBlock2D"])),
            ("add_attention", false.into()),
            ("attn_norm_num_groups", 7.into()),
        ];
        assert!(read(&plain).is_ok());
        let attention = ("add_attention", true.into());
        let with_attention = [&plain[..4], &[attention]].concat();
        assert!(read(&with_attention).is_err(), "8 does not divide 20");
    }

    #[test]
    fn blocks_with_a_skip_need_three_channels_and_no_groups() {
        let skips = [
            (
                "down_block_types",
                json!(["SkipDownBlock2D", "SkipDownBlock2D"]),
            ),
            ("up_block_types", json!(["SkipUpBlock2D", "SkipUpBlock2D"])),
            ("norm_num_groups", Value::Null),
        ];
        assert!(read(&skips).is_ok());
        for key in ["in_channels", "out_channels"] {
            let error = read(&[&skips[..], &[(key, 4.into())]].concat()).expect_err(key);
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn the_way_up_mirrors_the_way_down() {
        let config = read(&[("layers_per_block", 1.into())]).expect("a configuration");
        assert!(config.down_layers(1).eq([(32, 64)]));
        let layers: Vec<_> = config.up_layers(0).collect();
        assert_eq!(layers, [(64, 64, 64), (64, 32, 64)]);
        let layers: Vec<_> = config.up_layers(1).collect();
        assert_eq!(layers, [(64, 32, 32), (32, 32, 32)]);
    }
}
