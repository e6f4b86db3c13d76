//! Every key of `UNet2DModel.__init__`, with its default.

use serde::Deserialize;

use super::{
    ActivationFunction, BlockType, ClassEmbedding, Resampling, TimeEmbedding, UNetConfig,
    blocks::{DOWN, UP},
};
use crate::{
    LoadError,
    pipeline::ddpm::{MAX_SIDE, MAX_TIMESTEPS, options::Options},
};

/// The most channels of anything.
const MAX_CHANNELS: usize = 1 << 16;

/// The most layers in a block.
const MAX_LAYERS: usize = 1 << 8;

/// The most blocks on the way down.
const MAX_BLOCKS: usize = 16;

impl UNetConfig {
    pub(super) fn take(options: &mut Options) -> Result<Self, LoadError> {
        options.only("_class_name", "UNet2DModel")?;
        options.ignore(&["dropout"]);
        let channels = take_channels(options)?;
        let blocks = channels.len();
        let config = Self {
            sample_size: take_sample_size(options)?,
            in_channels: take_count(options, "in_channels", 3, MAX_CHANNELS)?,
            out_channels: take_count(options, "out_channels", 3, MAX_CHANNELS)?,
            center_input_sample: options.take("center_input_sample", false)?,
            time_embedding: take_time_embedding(options)?,
            time_embedding_dim: take_optional(options, "time_embedding_dim")?
                .unwrap_or(channels[0] * 4),
            freq_shift: options.take("freq_shift", 0.0)?,
            flip_sin_to_cos: options.take("flip_sin_to_cos", true)?,
            down_blocks: take_blocks(options, "down_block_types", &DOWN, blocks)?,
            up_blocks: take_blocks(options, "up_block_types", &UP, blocks)?,
            mid_block: take_mid_block(options)?,
            layers_per_block: take_count(options, "layers_per_block", 2, MAX_LAYERS)?,
            mid_block_scale_factor: options.take("mid_block_scale_factor", 1.0)?,
            downsample_padding: take_padding(options)?,
            downsample_type: take_resampling(options, "downsample_type")?,
            upsample_type: take_resampling(options, "upsample_type")?,
            act_fn: take_activation(options)?,
            attention_head_dim: options.take("attention_head_dim", Some(8))?,
            norm_num_groups: take_groups(options)?,
            attn_norm_num_groups: take_optional(options, "attn_norm_num_groups")?,
            norm_eps: options.take("norm_eps", 1e-5)?,
            time_scale_shift: take_time_scale_shift(options)?,
            add_attention: options.take("add_attention", true)?,
            class_embedding: take_class_embedding(options)?,
            block_out_channels: channels,
        };
        config.check(options)?;
        Ok(config)
    }
}

/// A picture's size as diffusers writes it: one number, or height and width.
#[derive(Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    HeightWidth(usize, usize),
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

fn take_groups(options: &mut Options) -> Result<Option<usize>, LoadError> {
    let key = "norm_num_groups";
    match options.take(key, Some(32))? {
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
    if !(1..=MAX_BLOCKS).contains(&channels.len()) || !channels.iter().all(is_sane) {
        let expected =
            format!("1 to {MAX_BLOCKS} blocks of 1 to {MAX_CHANNELS} channels are expected");
        return Err(options.unsupported("block_out_channels", &channels.into(), expected));
    }
    Ok(channels)
}

fn take_blocks(
    options: &mut Options,
    key: &str,
    known: &[(&str, BlockType)],
    count: usize,
) -> Result<Vec<BlockType>, LoadError> {
    let names: Vec<String> = options.require(key, "a list of block types is expected")?;
    if names.len() != count {
        let expected = format!("{count} blocks are expected, one for each of `block_out_channels`");
        return Err(options.unsupported(key, &names.into(), expected));
    }
    let find = |name: &String| {
        BlockType::find(name, known).ok_or_else(|| {
            let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            let expected = format!("{} are implemented", known.join(", "));
            options.unsupported(key, &name.as_str().into(), expected)
        })
    };
    names.iter().map(find).collect()
}

/// A text that is one of a few; null is the default.
fn take_name<T>(
    options: &mut Options,
    key: &str,
    default: &str,
    find: impl FnOnce(&str) -> Option<T>,
    expected: &str,
) -> Result<T, LoadError> {
    let name: Option<String> = options.take(key, None)?;
    let name = name.unwrap_or_else(|| default.to_owned());
    find(&name).ok_or_else(|| options.unsupported(key, &name.as_str().into(), expected))
}

fn take_time_embedding(options: &mut Options) -> Result<TimeEmbedding, LoadError> {
    let trained: Option<usize> = options.take("num_train_timesteps", None)?;
    let expected = "`positional`, `fourier` and `learned` are implemented";
    let find = |name: &str| match name {
        "positional" => Some(Ok(TimeEmbedding::Positional)),
        "fourier" => Some(Ok(TimeEmbedding::Fourier)),
        "learned" => Some(Err(trained)),
        _ => None,
    };
    match take_name(options, "time_embedding_type", "positional", find, expected)? {
        Ok(known) => Ok(known),
        Err(Some(count)) if (1..=MAX_TIMESTEPS).contains(&count) => {
            Ok(TimeEmbedding::Learned(count))
        }
        Err(count) => {
            let expected = format!("1 to {MAX_TIMESTEPS} are expected with learned time steps");
            Err(options.unsupported("num_train_timesteps", &count.into(), expected))
        }
    }
}

fn take_class_embedding(options: &mut Options) -> Result<Option<ClassEmbedding>, LoadError> {
    let classes = take_optional(options, "num_class_embeds")?;
    let name: Option<String> = options.take("class_embed_type", None)?;
    match name.as_deref() {
        None => Ok(classes.map(ClassEmbedding::Learned)),
        Some("timestep") => Ok(Some(ClassEmbedding::Timestep)),
        Some("identity") => Ok(Some(ClassEmbedding::Identity)),
        Some(other) => {
            let expected = "`timestep`, `identity` and null are implemented";
            Err(options.unsupported("class_embed_type", &other.into(), expected))
        }
    }
}

fn take_mid_block(options: &mut Options) -> Result<bool, LoadError> {
    let name: Option<String> = options.take("mid_block_type", Some("UNetMidBlock2D".into()))?;
    match name.as_deref() {
        None => Ok(false),
        Some("UNetMidBlock2D" | "UNetResMidBlock2D") => Ok(true),
        Some(other) => {
            let expected = "`UNetMidBlock2D` and null are implemented";
            Err(options.unsupported("mid_block_type", &other.into(), expected))
        }
    }
}

fn take_padding(options: &mut Options) -> Result<usize, LoadError> {
    match options.take("downsample_padding", 1)? {
        padding @ (0 | 1) => Ok(padding),
        other => {
            let expected = "0 and 1 are implemented";
            Err(options.unsupported("downsample_padding", &other.into(), expected))
        }
    }
}

fn take_resampling(options: &mut Options, key: &str) -> Result<Resampling, LoadError> {
    let find = |name: &str| match name {
        "conv" => Some(Resampling::Conv),
        "resnet" => Some(Resampling::Resnet),
        _ => None,
    };
    take_name(
        options,
        key,
        "conv",
        find,
        "`conv` and `resnet` are implemented",
    )
}

fn take_time_scale_shift(options: &mut Options) -> Result<bool, LoadError> {
    let find = |name: &str| match name {
        "default" => Some(false),
        "scale_shift" => Some(true),
        _ => None,
    };
    let expected = "`default` and `scale_shift` are implemented";
    take_name(
        options,
        "resnet_time_scale_shift",
        "default",
        find,
        expected,
    )
}

fn take_activation(options: &mut Options) -> Result<ActivationFunction, LoadError> {
    let find = |name: &str| match name.to_lowercase().as_str() {
        "silu" | "swish" => Some(ActivationFunction::Silu),
        "mish" => Some(ActivationFunction::Mish),
        "gelu" => Some(ActivationFunction::Gelu),
        "relu" => Some(ActivationFunction::Relu),
        _ => None,
    };
    let expected = "`silu`, `swish`, `mish`, `gelu` and `relu` are implemented";
    take_name(options, "act_fn", "silu", find, expected)
}
