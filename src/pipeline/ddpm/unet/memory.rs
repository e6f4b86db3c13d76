//! How much memory one call of the network needs at its peak, on top of the weights.
//!
//! Walks the modules as [`UNet::forward`](super::UNet::forward) does and counts numbers instead of computing
//! with them: what each operation, candle's or ours, holds besides its input, and how long that lives. It is an upper
//! bound, tested against a counting allocator.

use candle_core::DType;

use super::{ActivationFunction, BlockType, Shape, UNetConfig, kernels::ROWS};

/// Output pixels that candle's convolution works on at once.
const TILE: u128 = 512;

/// What the matrix product packs its operands into, in numbers, for each thread: at most a mebibyte or so.
const PACKED: u128 = 1 << 18;

/// How many times as large as the samples is what a job keeps between two calls of the network.
const KEPT: u128 = 16;

/// How the device computes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Machine {
    /// Threads that compute at the same time, on the CPU.
    pub(in super::super) threads: usize,
    /// Whether convolutions unfold their whole input at once, as on GPUs.
    pub(in super::super) unfolds: bool,
    /// Whether our own kernels compute, in place of candle's operations.
    pub(in super::super) kernels: bool,
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
        // Only this one goes without another copy.
        fused: machine.kernels && config.act_fn == ActivationFunction::Silu,
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
    /// Norms and activations are one operation.
    fused: bool,
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
        let side = config.sample_size;
        let samples = self.size(config.in_channels, side);
        // What is kept between calls: the samples, their noise, what was predicted, and copies of them in a preview
        // and the output.
        self.live += KEPT * samples + 4 * self.batch * config.time_embedding_dim as u128;
        let mut skips = Vec::new();
        self.conv(Shape::same(config.in_channels, channels[0]), side, side);
        self.keep(&mut skips, channels[0], side);
        let side = self.way_down(config, &mut skips);
        let last = channels[channels.len() - 1];
        if config.mid_block {
            self.layer(config, (last, last), side, config.add_attention);
            self.layer(config, (last, last), side, false);
        }
        let side = self.way_up(config, &mut skips, side);
        let hidden = self.size(channels[0], side);
        self.activated(hidden);
        self.conv(Shape::same(channels[0], config.out_channels), side, side);
    }

    fn way_down(&mut self, config: &UNetConfig, skips: &mut Vec<u128>) -> Side {
        let mut side = config.sample_size;
        let blocks = config.down_blocks.len();
        for (index, block) in config.down_blocks.iter().enumerate() {
            let outputs = config.block_out_channels[index];
            for (inputs, outputs) in config.down_layers(index) {
                self.layer(config, (inputs, outputs), side, block.has_attention());
                self.keep(skips, outputs, side);
            }
            if index + 1 < blocks {
                side = self.downsample(config, *block, outputs, side);
                self.keep(skips, outputs, side);
            }
        }
        side
    }

    fn way_up(&mut self, config: &UNetConfig, skips: &mut Vec<u128>, mut side: Side) -> Side {
        let blocks = config.up_blocks.len();
        for (index, block) in config.up_blocks.iter().enumerate() {
            let mut outputs = 0;
            for (below, skip, out) in config.up_layers(index) {
                let joined = self.size(below + skip, side);
                self.live += joined;
                self.layer(config, (below + skip, out), side, block.has_attention());
                let kept = skips.pop().expect("the way down left one for each layer");
                self.live -= joined + kept;
                outputs = out;
            }
            if index + 1 < blocks {
                side = self.upsample(config, *block, outputs, side);
            }
        }
        side
    }

    /// A tensor that stays until the way up.
    fn keep(&mut self, skips: &mut Vec<u128>, channels: usize, side: Side) {
        let size = self.size(channels, side);
        self.live += size;
        skips.push(size);
    }

    /// A residual block with its attention. The input is its caller's, the output not yet.
    fn layer(
        &mut self,
        config: &UNetConfig,
        (inputs, outputs): (usize, usize),
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
        self.activated(input);
        self.conv(Shape::same(inputs, outputs), side, side);
        self.live = before + output;
        // The sum with the time, and what scales and shifts it.
        self.live += output;
        self.norm(output);
        self.live += output;
        self.conv(Shape::same(outputs, outputs), side, side);
        self.live += output;
        if inputs != outputs {
            // The convolution of the shortcut, 1 by 1: a matrix product of copies, and the bias.
            self.peak((inputs * outputs) as u128 + input + 2 * output);
            self.live += output;
        }
        self.peak(output);
        self.live = before;
    }

    /// A norm and the activation after it, which stays.
    fn activated(&mut self, input: u128) {
        self.norm(input);
        self.live += if self.fused { input } else { 2 * input };
    }

    /// candle's norm keeps its centred and its scaled input until it is done; of what comes after ours, some do.
    fn norm(&mut self, input: u128) {
        self.peak(if self.fused { 2 * input } else { 4 * input });
    }

    /// A 3 by 3 convolution and its bias.
    fn conv(&mut self, shape: Shape, from: Side, to: Side) {
        let Shape {
            inputs, outputs, ..
        } = shape;
        let (input, output) = (self.size(inputs, from), self.size(outputs, to));
        let (rows, kernel) = (outputs as u128, 9 * inputs as u128);
        if self.machine.kernels {
            let (width, height) = from;
            let batch = self.batch as usize;
            let scratch = shape.scratch((height, width), batch, self.machine.threads);
            return self.peak(output + scratch + self.packed());
        }
        let unfolded = if self.machine.unfolds {
            9 * self.size(inputs, to) + output
        } else {
            self.tiles(self.batch, kernel, rows, to)
        };
        self.peak((input + rows * kernel + output + unfolded).max(2 * output));
    }

    /// What the tiles of a convolution hold that are worked on at once: their coordinates, patches and results.
    fn tiles(&self, pictures: u128, kernel: u128, rows: u128, to: Side) -> u128 {
        let pixels = to.0 as u128 * to.1 as u128;
        let tiles = pictures * pixels.div_ceil(TILE);
        let at_once = tiles.min(self.machine.threads as u128);
        at_once * (pixels.min(TILE) * (kernel + rows + 4) + PACKED)
    }

    fn downsample(
        &mut self,
        config: &UNetConfig,
        block: BlockType,
        channels: usize,
        side: Side,
    ) -> Side {
        let before = self.live;
        let to = if config.halves_by_resnet(block) || block.has_skip() {
            let to = (side.0 / 2, side.1 / 2);
            self.resample(channels, block, side, to);
            to
        } else {
            let padding = config.downsample_padding;
            let halved = |side: usize| match padding {
                0 => side.saturating_sub(2) / 2 + 1,
                _ => (side + 2 * padding).saturating_sub(3) / 2 + 1,
            };
            // The layer's output, and it padded once and twice.
            let copies = if self.machine.kernels { 1 } else { 3 };
            self.live += copies * self.size(channels, (side.0 + 1, side.1 + 1));
            let to = (halved(side.0), halved(side.1));
            self.conv(Shape::halve(channels, padding), side, to);
            to
        };
        self.live = before;
        to
    }

    fn upsample(
        &mut self,
        config: &UNetConfig,
        block: BlockType,
        channels: usize,
        side: Side,
    ) -> Side {
        let to = (2 * side.0, 2 * side.1);
        let before = self.live;
        if config.doubles_by_resnet(block) || block.has_skip() {
            self.resample(channels, block, side, to);
        } else {
            self.live += self.size(channels, side) + self.size(channels, to);
            self.conv(Shape::same(channels, channels), to, to);
        }
        self.live = before;
        to
    }

    /// A residual block that changes the size, and what goes along in blocks with a skip.
    fn resample(&mut self, channels: usize, block: BlockType, from: Side, to: Side) {
        let (input, output) = (self.size(channels, from), self.size(channels, to));
        let before = self.live;
        self.live += input;
        self.norm(input);
        // What was normed, and it in its new size, and the input in its new size.
        self.live += input;
        if block.has_skip() {
            self.filter(channels, from, to);
            self.live += 2 * output;
            self.filter(channels, from, to);
            // The picture, and what it becomes.
            self.live += 2 * output;
            self.conv(Shape::same(channels, channels), to, to);
        } else {
            self.live += 2 * output;
        }
        self.resnet(channels, channels, to);
        if block.has_skip() {
            // The shortcut has weights.
            self.live += 2 * output;
            self.peak((channels * channels) as u128 + 3 * output);
        }
        self.live = before;
    }

    /// A filter of 4 by 4 numbers over each channel.
    fn filter(&mut self, channels: usize, from: Side, to: Side) {
        let (input, output) = (self.size(channels, from), self.size(channels, to));
        let planes = self.batch * channels as u128;
        let unfolded = if self.machine.unfolds {
            16 * output
        } else {
            self.tiles(planes, 16, 1, to)
        };
        self.peak(2 * (input + output) + unfolded);
    }

    fn attention(&mut self, channels: usize, heads: usize, side: Side) {
        let before = self.live;
        let hidden = self.size(channels, side);
        let pixels = side.0 as u128 * side.1 as u128;
        let scores = self.batch * heads as u128 * pixels * pixels;
        self.norm(hidden);
        if self.machine.kernels {
            // Normed; query, key and value; mixed, projected, added and scaled.
            let scores = self.machine.threads as u128 * ROWS as u128 * pixels;
            return self.peak(8 * hidden + scores + self.packed());
        }
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
