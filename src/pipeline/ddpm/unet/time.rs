//! What every residual block is told: the time step, and the class where the model has classes.

use std::f32::consts::PI;

use candle_core::{Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, embedding, linear};

use super::{ClassEmbedding, TimeEmbedding, UNetConfig};

/// The classes of a batch.
pub(in super::super) enum Classes {
    /// An unconditional model.
    None,
    /// One number for each sample.
    Numbers(Vec<u32>),
    /// A vector for each sample, `(batch, time_embedding_dim)`.
    Vectors(Tensor),
}

/// Turns a time step and classes into one vector for each sample.
pub(super) struct Conditioning {
    time: TimeProjection,
    time_embedding: TimestepEmbedding,
    classes: Option<ClassProjection>,
}

enum ClassProjection {
    Learned(Embedding),
    Timestep(TimestepEmbedding),
    Identity,
}

impl Conditioning {
    pub(super) fn new(config: &UNetConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let (inputs, outputs) = (config.time_inputs(), config.time_embedding_dim);
        let embed = |name: &str| TimestepEmbedding::new(inputs, outputs, &vb.pp(name));
        let classes = |how| -> Result<_> {
            Ok(match how {
                ClassEmbedding::Learned(count) => {
                    ClassProjection::Learned(embedding(count, outputs, vb.pp("class_embedding"))?)
                }
                ClassEmbedding::Timestep => ClassProjection::Timestep(embed("class_embedding")?),
                ClassEmbedding::Identity => ClassProjection::Identity,
            })
        };
        Ok(Self {
            // First, so that its shape is checked before anything is sized by the configuration.
            time_embedding: embed("time_embedding")?,
            time: TimeProjection::new(config, vb)?,
            classes: config.class_embedding.map(classes).transpose()?,
        })
    }

    /// Returns `(batch, time_embedding_dim)`.
    pub(super) fn forward(&self, timestep: f64, batch: usize, classes: &Classes) -> Result<Tensor> {
        let time = self.embed(&self.time_embedding, &[timestep as f32])?;
        let time = time.broadcast_as((batch, time.dim(1)?))?;
        let classes = match (&self.classes, classes) {
            (Some(ClassProjection::Learned(embedding)), Classes::Numbers(numbers)) => {
                embedding.forward(&Tensor::new(&**numbers, time.device())?)?
            }
            (Some(ClassProjection::Timestep(embedding)), Classes::Numbers(numbers)) => {
                let numbers: Vec<_> = numbers.iter().map(|number| *number as f32).collect();
                self.embed(embedding, &numbers)?
            }
            (Some(ClassProjection::Identity), Classes::Vectors(vectors)) => {
                vectors.to_dtype(time.dtype())?
            }
            _ => return time.contiguous(),
        };
        time + classes
    }

    fn embed(&self, embedding: &TimestepEmbedding, times: &[f32]) -> Result<Tensor> {
        let weight = embedding.linear_1.weight();
        let waves = self.time.forward(times, weight.device())?;
        embedding.forward(&waves.to_dtype(weight.dtype())?)
    }
}

/// diffusers' `TimestepEmbedding`.
struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    fn new(inputs: usize, outputs: usize, vb: &VarBuilder<'static>) -> Result<Self> {
        Ok(Self {
            linear_1: linear(inputs, outputs, vb.pp("linear_1"))?,
            linear_2: linear(outputs, outputs, vb.pp("linear_2"))?,
        })
    }

    fn forward(&self, times: &Tensor) -> Result<Tensor> {
        self.linear_2
            .forward(&self.linear_1.forward(times)?.silu()?)
    }
}

/// The numbers that stand for a time step.
enum TimeProjection {
    Positional {
        frequencies: Vec<f32>,
        flip_sin_to_cos: bool,
        inputs: usize,
    },
    Fourier {
        frequencies: Vec<f32>,
    },
    Learned(Embedding),
}

impl TimeProjection {
    fn new(config: &UNetConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let channels = config.block_out_channels[0];
        Ok(match config.time_embedding {
            TimeEmbedding::Positional => Self::Positional {
                frequencies: frequencies(channels, config.freq_shift as f32),
                flip_sin_to_cos: config.flip_sin_to_cos,
                inputs: channels,
            },
            TimeEmbedding::Fourier => {
                let saved = vb.get(channels, "time_proj.weight")?;
                let saved = saved.to_dtype(candle_core::DType::F32)?;
                Self::Fourier {
                    frequencies: saved.to_vec1()?,
                }
            }
            TimeEmbedding::Learned(count) => {
                Self::Learned(embedding(count, channels, vb.pp("time_proj"))?)
            }
        })
    }

    /// Returns a row for each time step. In f32, in the order of diffusers: its waves go round hundreds of times.
    fn forward(&self, times: &[f32], device: &Device) -> Result<Tensor> {
        match self {
            Self::Positional {
                frequencies,
                flip_sin_to_cos,
                inputs,
            } => rows(times, device, |time| {
                let angles = frequencies.iter().map(|frequency| time * frequency);
                let mut row = waves(angles, *flip_sin_to_cos);
                row.resize(*inputs, 0.0);
                row
            }),
            Self::Fourier { frequencies } => rows(times, device, |time| {
                let log = time.ln();
                let angle = |frequency: &f32| log * frequency * 2.0 * PI;
                waves(frequencies.iter().map(angle), false)
            }),
            Self::Learned(embedding) => {
                let count = embedding.embeddings().dim(0)? as u32;
                let index = |time: &f32| (time.round().max(0.0) as u32).min(count - 1);
                let indices: Vec<_> = times.iter().map(index).collect();
                embedding.forward(&Tensor::new(indices, device)?)
            }
        }
    }
}

fn rows(times: &[f32], device: &Device, row: impl Fn(f32) -> Vec<f32>) -> Result<Tensor> {
    let rows: Vec<_> = times.iter().map(|time| row(*time)).collect();
    Tensor::new(rows, device)
}

fn waves(angles: impl Iterator<Item = f32> + Clone, flip_sin_to_cos: bool) -> Vec<f32> {
    let sines = angles.clone().map(f32::sin);
    let cosines = angles.map(f32::cos);
    if flip_sin_to_cos {
        cosines.chain(sines).collect()
    } else {
        sines.chain(cosines).collect()
    }
}

fn frequencies(channels: usize, shift: f32) -> Vec<f32> {
    let half = channels / 2;
    let log_period = -(10_000_f64.ln()) as f32;
    (0..half)
        .map(|i| (log_period * i as f32 / (half as f32 - shift)).exp())
        .collect()
}
