//! What every residual block is told: the time step, and the class where the model has classes.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, embedding, linear, ops::silu};

use super::UNetConfig;

/// Turns a time step and classes into one vector for each sample.
pub(super) struct Conditioning {
    frequencies: Vec<f64>,
    flip_sin_to_cos: bool,
    linear_1: Linear,
    linear_2: Linear,
    classes: Option<Embedding>,
}

impl Conditioning {
    pub(super) fn new(config: &UNetConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let (inputs, outputs) = (config.block_out_channels[0], config.time_embedding_dim);
        let time = vb.pp("time_embedding");
        let classes = config
            .num_class_embeds
            .map(|count| embedding(count, outputs, vb.pp("class_embedding")));
        Ok(Self {
            // First, so that its shape is checked before anything is sized by the configuration.
            linear_1: linear(inputs, outputs, time.pp("linear_1"))?,
            frequencies: frequencies(inputs, config.freq_shift),
            flip_sin_to_cos: config.flip_sin_to_cos,
            linear_2: linear(outputs, outputs, time.pp("linear_2"))?,
            classes: classes.transpose()?,
        })
    }

    /// Returns `(batch, time_embedding_dim)`.
    pub(super) fn forward(
        &self,
        timestep: f64,
        batch: usize,
        classes: Option<&Tensor>,
    ) -> Result<Tensor> {
        let weight = self.linear_1.weight();
        let waves = self
            .waves(timestep, weight.device())?
            .to_dtype(weight.dtype())?;
        let time = self
            .linear_2
            .forward(&silu(&self.linear_1.forward(&waves)?)?)?;
        let time = time.broadcast_as((batch, time.dim(1)?))?;
        match (&self.classes, classes) {
            (Some(embedding), Some(classes)) => time + embedding.forward(classes)?,
            _ => time.contiguous(),
        }
    }

    /// Sines and cosines of the time step (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
    fn waves(&self, timestep: f64, device: &Device) -> Result<Tensor> {
        let sines = self
            .frequencies
            .iter()
            .map(|frequency| (timestep * frequency).sin() as f32);
        let cosines = self
            .frequencies
            .iter()
            .map(|frequency| (timestep * frequency).cos() as f32);
        let mut waves: Vec<f32> = if self.flip_sin_to_cos {
            cosines.chain(sines).collect()
        } else {
            sines.chain(cosines).collect()
        };
        waves.resize(self.linear_1.weight().dim(1)?, 0.0);
        let count = waves.len();
        Tensor::from_vec(waves, (1, count), device)?.to_dtype(DType::F32)
    }
}

fn frequencies(dim: usize, shift: f64) -> Vec<f64> {
    let half = dim / 2;
    (0..half)
        .map(|i| (-(10_000_f64.ln()) * i as f64 / (half as f64 - shift)).exp())
        .collect()
}
