//! What has to fit together, or candle would stop in the middle of a job.

use serde_json::Value;

use super::{BlockType, UNetConfig};
use crate::{LoadError, pipeline::ddpm::options::Options};

impl UNetConfig {
    pub(super) fn check(&self, options: &Options) -> Result<(), LoadError> {
        self.check_numbers(options)?;
        self.check_norms(options)?;
        self.check_heads(options)?;
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
        let divides = |groups: usize, channels: usize| {
            let key = "norm_num_groups";
            divides(options, key, groups, channels)
        };
        divides(usual, self.block_out_channels[0])?;
        for (index, block) in self.down_blocks.iter().enumerate() {
            let channels = self.block_out_channels[index];
            for channels in [self.down_inputs(index), channels] {
                divides(block.groups(usual, channels), channels)?;
            }
            self.check_attention_norm(options, *block, channels)?;
        }
        for (index, block) in self.up_blocks.iter().enumerate() {
            for (below, skip, outputs) in self.up_layers(index) {
                divides(block.up_groups(usual, below, skip), below + skip)?;
                divides(block.groups(usual, outputs), outputs)?;
                self.check_attention_norm(options, *block, outputs)?;
            }
        }
        let last = *self.block_out_channels.last().unwrap_or(&0);
        divides(usual, last)?;
        let groups = self.attn_norm_num_groups.unwrap_or(usual);
        self::divides(options, "attn_norm_num_groups", groups, last)
    }

    fn check_attention_norm(
        &self,
        options: &Options,
        block: BlockType,
        channels: usize,
    ) -> Result<(), LoadError> {
        if !block.has_attention() {
            return Ok(());
        }
        let groups = block.attention_groups(self.norm_num_groups);
        divides(options, "norm_num_groups", groups, channels)
    }

    fn check_heads(&self, options: &Options) -> Result<(), LoadError> {
        let size = self.attention_head_dim.unwrap_or(1);
        let mut channels = self.block_out_channels.iter();
        channels.try_for_each(|channels| divides(options, "attention_head_dim", size, *channels))
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
                let expected = "blocks with and without a skip cannot be mixed";
                return Err(options.unsupported(key, &value, expected));
            }
            if self.in_channels != 3 {
                let expected = "blocks with a skip need 3 channels";
                return Err(options.unsupported("in_channels", &self.in_channels.into(), expected));
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
