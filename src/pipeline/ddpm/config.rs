//! The configuration of a pipeline: the network's and the scheduler's.

use bevy::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::{SchedulerConfig, options::Options};
use crate::{LoadError, ModelFiles};

/// The largest width and height of a sample, in pixels.
const MAX_SIDE: usize = 1 << 13;

/// The most channels of anything.
const MAX_CHANNELS: usize = 1 << 16;

/// The most layers in a block.
const MAX_LAYERS: usize = 1 << 8;

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
    /// Reads `model_index.json`, `unet/config.json` and `scheduler/scheduler_config.json`.
    pub(super) fn read(files: &dyn ModelFiles) -> Result<Self, LoadError> {
        let mut index = Options::read(files, "model_index.json")?;
        let class: String = index.require("_class_name", "`DDPMPipeline` is expected")?;
        if !matches!(class.as_str(), "DDPMPipeline" | "DDIMPipeline") {
            return Err(index.unsupported(
                "_class_name",
                &class.into(),
                "`DDPMPipeline` is expected",
            ));
        }
        Ok(Self {
            unet: UNetConfig::read(files)?,
            scheduler: SchedulerConfig::read(files)?,
        })
    }
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
    /// Shifts the frequencies of the time embedding.
    pub freq_shift: f64,
    /// Puts the cosines before the sines.
    pub flip_sin_to_cos: bool,
    /// Which of the blocks on the way down have attention.
    pub down_attention: Vec<bool>,
    /// Which of the blocks on the way up have attention.
    pub up_attention: Vec<bool>,
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
    /// Channels of one attention head; [`None`] is a single head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Groups of the norm before the middle's attention, where they differ.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the variance in norms.
    pub norm_eps: f64,
    /// Whether time scales and shifts, or is just added.
    pub time_scale_shift: bool,
    /// Whether the middle has attention.
    pub add_attention: bool,
    /// Channels of the time embedding.
    pub time_embedding_dim: usize,
    /// How many classes the model knows; [`None`] is an unconditional model.
    pub num_class_embeds: Option<usize>,
}

/// A picture's size as diffusers writes it: one number, or height and width.
#[derive(Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    HeightWidth(usize, usize),
}

impl UNetConfig {
    fn read(files: &dyn ModelFiles) -> Result<Self, LoadError> {
        let mut options = Options::read(files, "unet/config.json")?;
        let config = Self::take(&mut options)?;
        options.finish()?;
        Ok(config)
    }

    /// Takes every key of `UNet2DModel.__init__`, with its defaults.
    fn take(options: &mut Options) -> Result<Self, LoadError> {
        for key in ["downsample_type", "upsample_type"] {
            options.only(key, "conv")?;
        }
        options.only("time_embedding_type", "positional")?;
        options.only("class_embed_type", Value::Null)?;
        options.ignore(&["dropout", "num_train_timesteps"]);
        let channels = take_channels(options)?;
        let down = take_blocks(
            options,
            "down_block_types",
            ["DownBlock2D", "AttnDownBlock2D"],
            channels.len(),
        )?;
        let up = take_blocks(
            options,
            "up_block_types",
            ["UpBlock2D", "AttnUpBlock2D"],
            channels.len(),
        )?;
        let config = Self {
            sample_size: take_sample_size(options)?,
            in_channels: take_count(options, "in_channels", 3, MAX_CHANNELS)?,
            out_channels: take_count(options, "out_channels", 3, MAX_CHANNELS)?,
            center_input_sample: options.take("center_input_sample", false)?,
            freq_shift: options.take("freq_shift", 0.0)?,
            flip_sin_to_cos: options.take("flip_sin_to_cos", true)?,
            down_attention: down,
            up_attention: up,
            mid_block: take_mid_block(options)?,
            layers_per_block: take_count(options, "layers_per_block", 2, MAX_LAYERS)?,
            mid_block_scale_factor: options.take("mid_block_scale_factor", 1.0)?,
            downsample_padding: take_padding(options)?,
            attention_head_dim: options.take("attention_head_dim", Some(8))?,
            norm_num_groups: take_count(options, "norm_num_groups", 32, MAX_CHANNELS)?,
            attn_norm_num_groups: take_optional(options, "attn_norm_num_groups")?,
            norm_eps: options.take("norm_eps", 1e-5)?,
            time_scale_shift: take_time_scale_shift(options)?,
            add_attention: options.take("add_attention", true)?,
            time_embedding_dim: take_optional(options, "time_embedding_dim")?
                .unwrap_or(channels[0] * 4),
            num_class_embeds: take_optional(options, "num_class_embeds")?,
            block_out_channels: channels,
        };
        take_activation(options)?;
        config.check(options)?;
        Ok(config)
    }

    /// What has to divide does, or candle would stop in the middle of a job.
    fn check(&self, options: &Options) -> Result<(), LoadError> {
        let groups = self.attn_norm_num_groups.unwrap_or(self.norm_num_groups);
        let heads = self.attention_head_dim.unwrap_or(1);
        for channels in &self.block_out_channels {
            divides(options, "norm_num_groups", self.norm_num_groups, *channels)?;
            divides(options, "attention_head_dim", heads, *channels)?;
        }
        divides(
            options,
            "attn_norm_num_groups",
            groups,
            *self.block_out_channels.last().unwrap_or(&0),
        )?;
        let halvings = 1_usize << (self.block_out_channels.len() - 1);
        let (width, height) = self.sample_size;
        if !width.is_multiple_of(halvings) || !height.is_multiple_of(halvings) {
            let expected =
                format!("sides that {halvings} divides are expected, since the blocks halve them");
            return Err(options.unsupported("sample_size", &vec![height, width].into(), expected));
        }
        if self.in_channels != self.out_channels {
            let value = self.out_channels.into();
            return Err(options.unsupported(
                "out_channels",
                &value,
                "it has to equal `in_channels`",
            ));
        }
        let frequencies = self.block_out_channels[0] / 2;
        if !(0.0..frequencies as f64).contains(&self.freq_shift) {
            let expected = format!("0 or more and less than {frequencies} is expected");
            return Err(options.unsupported("freq_shift", &self.freq_shift.into(), expected));
        }
        Ok(())
    }
}

fn divides(options: &Options, key: &str, divisor: usize, channels: usize) -> Result<(), LoadError> {
    if divisor > 0 && channels.is_multiple_of(divisor) {
        return Ok(());
    }
    let expected = format!("it has to divide the {channels} channels of a block");
    Err(options.unsupported(key, &divisor.into(), expected))
}

fn take_count(
    options: &mut Options,
    key: &str,
    default: usize,
    most: usize,
) -> Result<usize, LoadError> {
    match options.take(key, default)? {
        count if (1..=most).contains(&count) => Ok(count),
        other => Err(options.unsupported(key, &other.into(), format!("1 to {most} is expected"))),
    }
}

fn take_optional(options: &mut Options, key: &str) -> Result<Option<usize>, LoadError> {
    match options.take(key, None)? {
        Some(count) if !(1..=MAX_CHANNELS).contains(&count) => {
            let expected = format!("1 to {MAX_CHANNELS}, or null, is expected");
            Err(options.unsupported(key, &count.into(), expected))
        }
        other => Ok(other),
    }
}

fn take_sample_size(options: &mut Options) -> Result<(usize, usize), LoadError> {
    let (width, height) =
        match options.require("sample_size", "a number, or height and width, are expected")? {
            SampleSize::Square(size) => (size, size),
            SampleSize::HeightWidth(height, width) => (width, height),
        };
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(options.unsupported(
            "sample_size",
            &vec![height, width].into(),
            format!("1 to {MAX_SIDE} pixels are expected"),
        ));
    }
    Ok((width, height))
}

fn take_channels(options: &mut Options) -> Result<Vec<usize>, LoadError> {
    let channels = options.take("block_out_channels", vec![224, 448, 672, 896])?;
    let is_sane = |count: &usize| (1..=MAX_CHANNELS).contains(count);
    if !(1..=16).contains(&channels.len()) || !channels.iter().all(is_sane) {
        let value = channels.into();
        return Err(options.unsupported(
            "block_out_channels",
            &value,
            format!("1 to 16 blocks of 1 to {MAX_CHANNELS} channels are expected"),
        ));
    }
    Ok(channels)
}

/// Whether each block is the first, plain kind or the second, with attention.
fn take_blocks(
    options: &mut Options,
    key: &str,
    kinds: [&str; 2],
    count: usize,
) -> Result<Vec<bool>, LoadError> {
    let [plain, attention] = kinds;
    let names: Vec<String> = options.require(key, "a list of block types is expected")?;
    if names.len() != count {
        let expected = format!("{count} blocks are expected, one for each of `block_out_channels`");
        return Err(options.unsupported(key, &names.into(), expected));
    }
    let kind = |name: &String| match name.as_str() {
        name if name == plain => Ok(false),
        name if name == attention => Ok(true),
        _ => {
            let expected = format!("`{plain}` and `{attention}` are implemented");
            Err(options.unsupported(key, &name.as_str().into(), expected))
        }
    };
    names.iter().map(kind).collect()
}

fn take_mid_block(options: &mut Options) -> Result<bool, LoadError> {
    let name: Option<String> = options.take("mid_block_type", Some("UNetMidBlock2D".into()))?;
    match name.as_deref() {
        None => Ok(false),
        Some("UNetMidBlock2D") => Ok(true),
        Some(other) => Err(options.unsupported(
            "mid_block_type",
            &other.into(),
            "`UNetMidBlock2D` and null are implemented",
        )),
    }
}

fn take_padding(options: &mut Options) -> Result<usize, LoadError> {
    match options.take("downsample_padding", 1)? {
        padding @ (0 | 1) => Ok(padding),
        other => Err(options.unsupported(
            "downsample_padding",
            &other.into(),
            "0 and 1 are implemented",
        )),
    }
}

fn take_time_scale_shift(options: &mut Options) -> Result<bool, LoadError> {
    let name: String = options.take("resnet_time_scale_shift", "default".into())?;
    match name.as_str() {
        "default" => Ok(false),
        "scale_shift" => Ok(true),
        other => {
            let expected = "`default` and `scale_shift` are implemented";
            Err(options.unsupported("resnet_time_scale_shift", &other.into(), expected))
        }
    }
}

/// `swish` is diffusers' other name for `silu`.
fn take_activation(options: &mut Options) -> Result<(), LoadError> {
    let name: String = options.take("act_fn", "silu".into())?;
    match name.as_str() {
        "silu" | "swish" => Ok(()),
        other => Err(options.unsupported("act_fn", &other.into(), "`silu` is implemented")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    fn read(changes: &[(&str, Value)]) -> Result<UNetConfig, LoadError> {
        let mut json = serde_json::json!({
            "_class_name": "UNet2DModel",
            "sample_size": 32,
            "block_out_channels": [32, 64],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        });
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        UNetConfig::read(&MemoryFiles::new([(
            "unet/config.json",
            json.to_string().into_bytes(),
        )]))
    }

    #[test]
    fn missing_keys_have_the_defaults_of_diffusers() {
        let config = read(&[]).expect("a configuration");
        assert_eq!(config.layers_per_block, 2);
        assert_eq!(config.attention_head_dim, Some(8));
        assert_eq!(config.time_embedding_dim, 128);
        assert_eq!(config.down_attention, [false, true]);
        assert_eq!(config.up_attention, [true, false]);
    }

    #[test]
    fn a_pair_is_height_and_width() {
        let config =
            read(&[("sample_size", serde_json::json!([16, 24]))]).expect("a configuration");
        assert_eq!(config.sample_size, (24, 16));
    }

    #[test]
    fn what_is_not_implemented_is_named_with_its_value() {
        let refused = [
            ("time_embedding_type", "fourier".into()),
            (
                "down_block_types",
                vec!["DownBlock2D", "SkipDownBlock2D"].into(),
            ),
            ("class_embed_type", "timestep".into()),
            ("act_fn", "gelu".into()),
            ("norm_num_groups", 7.into()),
            ("attention_head_dim", 0.into()),
            ("block_out_channels", vec![0, 64].into()),
            ("sample_size", Value::Null),
            ("sample_size", 33.into()),
            ("sample_size", 1_000_000.into()),
            ("block_out_channels", vec![3_200_000_000_000_u64, 64].into()),
            ("attn_norm_num_groups", 0.into()),
            ("num_class_embeds", 0.into()),
            ("freq_shift", 16.into()),
            ("brand_new_key", true.into()),
        ];
        for (key, value) in refused {
            let error = read(&[(key, value)]).expect_err(key);
            assert!(
                matches!(&error, LoadError::UnsupportedOption { key: found, file, .. }
                    if found == key && file == "unet/config.json"),
                "{error}"
            );
        }
    }
}
