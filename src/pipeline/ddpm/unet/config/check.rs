//! What has to fit together, or candle would stop in the middle of a job.

use serde_json::Value;

use super::{BlockType, UNetConfig};
use crate::{LoadError, pipeline::ddpm::options::Options};

impl UNetConfig {
    pub(super) fn check(&self, options: &Options) -> Result<(), LoadError> {
        self.check_numbers(options)?;
        self.check_norms(options)?;
        self.check_size(options)?;
        self.check_skips(options)
    }

    fn check_numbers(&self, options: &Options) -> Result<(), LoadError> {
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            let expected = "0 or more is expected";
            return Err(options.unsupported("norm_eps", &self.norm_eps.into(), expected));
        }
        let factor = self.mid_block_scale_factor;
        if !factor.is_normal() {
            let expected = "a number other than 0 is expected";
            return Err(options.unsupported("mid_block_scale_factor", &factor.into(), expected));
        }
        let frequencies = self.block_out_channels[0] / 2;
        if !(0.0..frequencies as f64).contains(&self.freq_shift) {
            let expected = format!("0 or more and less than {frequencies} is expected");
            return Err(options.unsupported("freq_shift", &self.freq_shift.into(), expected));
        }
        Ok(())
    }

    fn check_norms(&self, options: &Options) -> Result<(), LoadError> {
        let usual = self.norm_num_groups;
        let divides = |groups, channels| divides(options, "norm_num_groups", groups, channels);
        let (first, last) = self.ends();
        divides(self.groups(first), first)?;
        for (index, block) in self.down_blocks.iter().enumerate() {
            for (inputs, outputs) in self.down_layers(index) {
                divides(block.groups(usual, inputs), inputs)?;
                divides(block.groups(usual, outputs), outputs)?;
                self.check_attention(options, *block, outputs)?;
            }
        }
        for (index, block) in self.up_blocks.iter().enumerate() {
            for (below, skip, outputs) in self.up_layers(index) {
                divides(block.up_groups(usual, below, skip), below + skip)?;
                divides(block.groups(usual, outputs), outputs)?;
                self.check_attention(options, *block, outputs)?;
            }
        }
        if self.mid_block {
            divides(self.groups(last), last)?;
        }
        self.check_middle(options, last)
    }

    /// Channels of the first and of the last block.
    fn ends(&self) -> (usize, usize) {
        let channels = &self.block_out_channels;
        (channels[0], channels[channels.len() - 1])
    }

    fn check_attention(
        &self,
        options: &Options,
        block: BlockType,
        channels: usize,
    ) -> Result<(), LoadError> {
        if !block.has_attention() {
            return Ok(());
        }
        let groups = block.attention_groups(self.norm_num_groups);
        divides(options, "norm_num_groups", groups, channels)?;
        self.check_heads(options, channels)
    }

    fn check_middle(&self, options: &Options, channels: usize) -> Result<(), LoadError> {
        if !(self.mid_block && self.add_attention) {
            return Ok(());
        }
        if let Some(groups) = self.attn_norm_num_groups {
            divides(options, "attn_norm_num_groups", groups, channels)?;
        }
        self.check_heads(options, channels)
    }

    fn check_heads(&self, options: &Options, channels: usize) -> Result<(), LoadError> {
        let size = self.attention_head_dim.unwrap_or(channels);
        divides(options, "attention_head_dim", size, channels)
    }

    fn check_size(&self, options: &Options) -> Result<(), LoadError> {
        let halvings = 1_usize << (self.block_out_channels.len() - 1);
        let (width, height) = self.sample_size;
        if width.is_multiple_of(halvings) && height.is_multiple_of(halvings) {
            return Ok(());
        }
        let expected = format!("sides that {halvings} divides are expected: the blocks halve them");
        Err(options.unsupported("sample_size", &vec![height, width].into(), expected))
    }

    /// The picture that goes along has three channels and the block's size, so all blocks have to take it along.
    fn check_skips(&self, options: &Options) -> Result<(), LoadError> {
        let has_plain = |blocks: &[BlockType]| !blocks.iter().all(|block| block.has_skip());
        if self.norm_num_groups.is_none()
            && (has_plain(&self.down_blocks) || has_plain(&self.up_blocks))
        {
            let expected = "a number is expected, unless all blocks have a skip";
            return Err(options.unsupported("norm_num_groups", &Value::Null, expected));
        }
        let ways = [
            ("down_block_types", &self.down_blocks),
            ("up_block_types", &self.up_blocks),
        ];
        for (key, blocks) in ways {
            let with_skip = blocks.iter().filter(|block| block.has_skip()).count();
            if with_skip == 0 {
                continue;
            }
            if with_skip < blocks.len() {
                let value = Value::from(format!("{blocks:?}"));
                let expected = "mixing blocks with and without a skip is not implemented";
                return Err(options.unsupported(key, &value, expected));
            }
            for (key, channels) in [
                ("in_channels", self.in_channels),
                ("out_channels", self.out_channels),
            ] {
                if channels != 3 {
                    let expected = "blocks with a skip need 3 channels";
                    return Err(options.unsupported(key, &channels.into(), expected));
                }
            }
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
