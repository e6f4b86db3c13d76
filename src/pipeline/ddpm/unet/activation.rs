//! What makes the network more than linear.

use candle_core::{Result, Tensor};
use candle_nn::ops::mish;

use super::ActivationFunction;

impl ActivationFunction {
    /// Applies it to each number.
    pub(super) fn apply(self, hidden: &Tensor) -> Result<Tensor> {
        match self {
            Self::Silu => hidden.silu(),
            Self::Mish => mish(hidden),
            Self::Gelu => hidden.gelu_erf(),
            Self::Relu => hidden.relu(),
        }
    }
}
