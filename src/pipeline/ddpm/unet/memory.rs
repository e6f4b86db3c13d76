//! How much memory one call of the network needs at its peak, on top of the weights.
//!
//! Walks the modules as [`UNet::forward`](super::UNet::forward) does and counts numbers instead of computing
//! with them: what each operation of candle holds besides its input, and how long that lives. It is an upper
//! bound, tested against a counting allocator.

use candle_core::DType;

use super::UNetConfig;

/// Output pixels that candle's convolution works on at once.
const TILE: u128 = 512;

/// What the matrix product packs its operands into, in numbers, for each thread: at most a mebibyte or so.
const PACKED: u128 = 1 << 18;

/// How the device computes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Machine {
    /// Threads that compute at the same time, on the CPU.
    pub(in super::super) threads: usize,
    /// Whether convolutions unfold their whole input at once, as on GPUs.
    pub(in super::super) unfolds: bool,
}

/// Returns the bytes that a call with `batch` samples needs at its peak.
pub(in super::super) fn working_memory(
    config: &UNetConfig,
    batch: u32,
    dtype: DType,
    machine: Machine,
) -> u64 {
    let mut meter = Meter {
        batch: batch.into(),
        machine,
        live: 0,
        peak: 0,
    };
    meter.unet(config);
    // Norms compute with f32, also where the model runs in half floats.
    let size = dtype.size_in_bytes().max(4) as u128;
    (meter.peak * size).try_into().unwrap_or(u64::MAX)
}

/// Counts numbers.
struct Meter {
    batch: u128,
    machine: Machine,
    /// What is held at the moment.
    live: u128,
    peak: u128,
}

/// Width and height of a picture inside the network.
type Side = (usize, usize);

impl Meter {
    /// Numbers in a tensor `(batch, channels, height, width)`.
    fn size(&self, channels: usize, (width, height): Side) -> u128 {
        self.batch * channels as u128 * width as u128 * height as u128
    }

    /// Needs some more for a moment.
    fn peak(&mut self, more: u128) {
        self.peak = self.peak.max(self.live + more);
    }

    fn unet(&mut self, config: &UNetConfig) {
        let channels = &config.block_out_channels;
        let mut side = config.sample_size;
        let samples = self.size(config.in_channels, side);
        // What is kept between calls: the samples, their noise and copies of them in a preview and the output.
        self.live += 8 * samples + 4 * self.batch * config.time_embedding_dim as u128;
        let mut skips = Vec::new();
        self.conv(config.in_channels, channels[0], side, side);
        self.keep(&mut skips, channels[0], side);
        let mut inputs = channels[0];
        for (index, outputs) in channels.iter().copied().enumerate() {
            for _ in 0..config.layers_per_block {
                self.layer(config, inputs, outputs, side, config.down_attention[index]);
                self.keep(&mut skips, outputs, side);
                inputs = outputs;
            }
            if index + 1 < channels.len() {
                side = self.downsample(config, outputs, side);
                self.keep(&mut skips, outputs, side);
            }
        }
        if config.mid_block {
            self.layer(config, inputs, inputs, side, config.add_attention);
            self.layer(config, inputs, inputs, side, false);
        }
        for (index, outputs) in channels.iter().copied().rev().enumerate() {
            for _ in 0..=config.layers_per_block {
                let skip = skips.pop().expect("the way down left one for each layer");
                let below = inputs + skip;
                let joined = self.size(below, side);
                self.live += joined;
                self.layer(config, below, outputs, side, config.up_attention[index]);
                self.live -= joined + self.size(skip, side);
                inputs = outputs;
            }
            if index + 1 < channels.len() {
                side = self.upsample(outputs, side);
            }
        }
        let hidden = self.size(inputs, side);
        self.norm(hidden);
        self.live += 2 * hidden;
        self.conv(inputs, config.out_channels, side, side);
    }

    /// A tensor that stays until the way up.
    fn keep(&mut self, skips: &mut Vec<usize>, channels: usize, side: Side) {
        self.live += self.size(channels, side);
        skips.push(channels);
    }

    /// A residual block with its attention. The input is its caller's, the output not yet.
    fn layer(
        &mut self,
        config: &UNetConfig,
        inputs: usize,
        outputs: usize,
        side: Side,
        attention: bool,
    ) {
        let before = self.live;
        // What the caller holds although it is not kept: the input on its way through.
        self.live += self.size(inputs, side);
        self.resnet(inputs, outputs, side);
        if attention {
            self.live += self.size(outputs, side);
            let size = config.attention_head_dim.unwrap_or(outputs);
            self.attention(outputs, outputs / size, side);
        }
        self.live = before;
    }

    fn resnet(&mut self, inputs: usize, outputs: usize, side: Side) {
        let before = self.live;
        let (input, output) = (self.size(inputs, side), self.size(outputs, side));
        self.norm(input);
        self.live += 2 * input;
        self.conv(inputs, outputs, side, side);
        self.live = before + output;
        // The sum with the time, and what scales and shifts it.
        self.live += output;
        self.norm(output);
        self.live += output;
        self.conv(outputs, outputs, side, side);
        self.live += output;
        if inputs != outputs {
            // The convolution of the shortcut, 1 by 1: a matrix product of copies, and the bias.
            self.peak((inputs * outputs) as u128 + input + 2 * output);
            self.live += output;
        }
        self.peak(output);
        self.live = before;
    }

    /// The norm keeps its centred and its scaled input until it is done.
    fn norm(&mut self, input: u128) {
        self.peak(4 * input);
    }

    /// A 3 by 3 convolution and its bias.
    fn conv(&mut self, inputs: usize, outputs: usize, from: Side, to: Side) {
        let (input, output) = (self.size(inputs, from), self.size(outputs, to));
        let (rows, kernel) = (outputs as u128, 9 * inputs as u128);
        let unfolded = if self.machine.unfolds {
            9 * self.size(inputs, to) + output
        } else {
            let pixels = to.0 as u128 * to.1 as u128;
            let tiles = self.batch * pixels.div_ceil(TILE);
            let at_once = tiles.min(self.machine.threads as u128);
            let tile = pixels.min(TILE);
            // A tile holds its coordinates, its patches, and its result.
            at_once * (tile * (kernel + rows + 4) + PACKED)
        };
        self.peak((input + rows * kernel + output + unfolded).max(2 * output));
    }

    fn downsample(&mut self, config: &UNetConfig, channels: usize, side: Side) -> Side {
        let padding = config.downsample_padding;
        let halved = |side: usize| match padding {
            0 => side.saturating_sub(2) / 2 + 1,
            _ => (side + 2 * padding).saturating_sub(3) / 2 + 1,
        };
        let before = self.live;
        // The layer's output, and it padded once and twice.
        self.live += 3 * self.size(channels, (side.0 + 1, side.1 + 1));
        let to = (halved(side.0), halved(side.1));
        self.conv(channels, channels, side, to);
        self.live = before;
        to
    }

    fn upsample(&mut self, channels: usize, side: Side) -> Side {
        let to = (2 * side.0, 2 * side.1);
        let before = self.live;
        self.live += self.size(channels, side) + self.size(channels, to);
        self.conv(channels, channels, to, to);
        self.live = before;
        to
    }

    fn attention(&mut self, channels: usize, heads: usize, side: Side) {
        let before = self.live;
        let hidden = self.size(channels, side);
        let pixels = side.0 as u128 * side.1 as u128;
        let scores = self.batch * heads as u128 * pixels * pixels;
        self.norm(hidden);
        // Normed, once as it came and once in the other order; query, key and value.
        self.live += 2 * hidden;
        self.peak(6 * hidden + self.packed());
        self.live += 3 * hidden;
        self.peak(hidden + 2 * scores + self.packed());
        self.live += scores;
        self.peak(2 * scores + hidden);
        self.peak(scores + 4 * hidden + self.packed());
        self.live = before;
    }

    fn packed(&self) -> u128 {
        PACKED * self.machine.threads as u128
    }
}
