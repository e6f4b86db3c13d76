//! The kinds of blocks.

use bevy::prelude::*;

/// What a block of the network is made of, on the way down as on the way up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum BlockType {
    /// `DownBlock2D`, `UpBlock2D`: residual blocks.
    Plain,
    /// `AttnDownBlock2D`, `AttnUpBlock2D`: attention after each.
    Attention,
    /// `ResnetDownsampleBlock2D`, `ResnetUpsampleBlock2D`: a residual block halves or doubles.
    Resnet,
    /// `SkipDownBlock2D`, `SkipUpBlock2D`: the picture itself goes along in its smaller sizes (Karras et al. 2020,
    /// <https://arxiv.org/abs/1912.04958>).
    Skip,
    /// `AttnSkipDownBlock2D`, `AttnSkipUpBlock2D`: the same with attention.
    AttentionSkip,
}

/// How a picture is halved or doubled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[non_exhaustive]
pub enum Resampling {
    /// By a convolution.
    #[default]
    Conv,
    /// By a residual block.
    Resnet,
}

/// Groups of the norms before attention in blocks with a skip.
const SKIP_ATTENTION_GROUPS: usize = 32;

impl BlockType {
    /// Finds a block by the name that diffusers gives it, on the way down or up.
    pub(super) fn find(name: &str, names: &[(&str, Self)]) -> Option<Self> {
        let name = name.strip_prefix("UNetRes").unwrap_or(name);
        let found = names.iter().find(|(known, _)| *known == name);
        found.map(|(_, block)| *block)
    }

    pub(in super::super) fn has_attention(self) -> bool {
        matches!(self, Self::Attention | Self::AttentionSkip)
    }

    pub(in super::super) fn has_skip(self) -> bool {
        matches!(self, Self::Skip | Self::AttentionSkip)
    }

    /// Divides the output of its residual blocks and its attention.
    pub(in super::super) fn scale_factor(self) -> f64 {
        if self.has_skip() {
            std::f64::consts::SQRT_2
        } else {
            1.0
        }
    }

    /// Groups of a norm over so many channels, where others have `usual`.
    pub(in super::super) fn groups(self, usual: Option<usize>, channels: usize) -> usize {
        usual
            .filter(|_| !self.has_skip())
            .unwrap_or_else(|| quarter(channels))
    }

    /// Groups of the first norm in a block on the way up, for channels from below and from the way down.
    pub(in super::super) fn up_groups(
        self,
        usual: Option<usize>,
        below: usize,
        skip: usize,
    ) -> usize {
        match self {
            // As diffusers has it: only the skip is divided.
            Self::AttentionSkip => (below + skip / 4).min(32),
            other => other.groups(usual, below + skip),
        }
    }

    /// Groups of the norm before attention.
    pub(in super::super) fn attention_groups(self, usual: Option<usize>) -> usize {
        usual
            .filter(|_| !self.has_skip())
            .unwrap_or(SKIP_ATTENTION_GROUPS)
    }

    pub(super) fn resamples_by_resnet(self, how: Resampling) -> bool {
        self == Self::Resnet || self == Self::Attention && how == Resampling::Resnet
    }
}

/// Groups of a norm where no number is given.
pub(super) fn quarter(channels: usize) -> usize {
    (channels / 4).min(32)
}

pub(super) const DOWN: [(&str, BlockType); 5] = [
    ("DownBlock2D", BlockType::Plain),
    ("AttnDownBlock2D", BlockType::Attention),
    ("ResnetDownsampleBlock2D", BlockType::Resnet),
    ("SkipDownBlock2D", BlockType::Skip),
    ("AttnSkipDownBlock2D", BlockType::AttentionSkip),
];

pub(super) const UP: [(&str, BlockType); 5] = [
    ("UpBlock2D", BlockType::Plain),
    ("AttnUpBlock2D", BlockType::Attention),
    ("ResnetUpsampleBlock2D", BlockType::Resnet),
    ("SkipUpBlock2D", BlockType::Skip),
    ("AttnSkipUpBlock2D", BlockType::AttentionSkip),
];
