//! What makes the network more than linear.

use candle_core::{Result, Tensor};

use super::{ActivationFunction, kernels::each_number};

impl ActivationFunction {
    /// Applies it to each number.
    pub(super) fn apply(self, hidden: &Tensor) -> Result<Tensor> {
        let apply = |hidden: &Tensor| match self {
            Self::Silu => hidden.silu(),
            Self::Mish => mish(hidden),
            Self::Gelu => hidden.gelu_erf(),
            Self::Relu => hidden.relu(),
        };
        if hidden.rank() == 4 {
            each_number(hidden, apply)
        } else {
            apply(hidden)
        }
    }
}

/// Step by step, so that no more than one result is held besides the input: candle's keeps four.
fn mish(hidden: &Tensor) -> Result<Tensor> {
    let mut gate = hidden.exp()?;
    gate = gate.affine(1.0, 1.0)?;
    gate = gate.log()?;
    gate = gate.tanh()?;
    hidden * gate
}
