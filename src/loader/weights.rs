//! [`Weights`]: the read tensors as candle's `VarBuilder` wants them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};

use super::plan::check_shape;
use crate::LoadError;

/// Hands each tensor out and lets go of it, so that nothing is held twice.
#[derive(Default)]
pub(super) struct Weights {
    names: HashSet<Arc<str>>,
    tensors: Mutex<HashMap<Arc<str>, Kept>>,
}

struct Kept {
    tensor: Tensor,
    /// How often it will be asked for; [`None`]: unknown, so it is kept while the pipeline is built.
    uses: Option<u32>,
}

impl Weights {
    pub(super) fn insert(&mut self, name: Arc<str>, tensor: Tensor, uses: Option<u32>) {
        self.names.insert(name.clone());
        let tensors = self
            .tensors
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        tensors.insert(name, Kept { tensor, uses });
    }

    pub(super) fn into_var_builder(self, dtype: DType, device: Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device)
    }

    fn take(&self, name: &str) -> Result<Tensor, LoadError> {
        let mut tensors = self.tensors.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || match self.names.contains(name) {
            true => LoadError::build(format!(
                "`build` asks for `{name}` more often than `Plan::check` did"
            )),
            false => LoadError::MissingTensor {
                tensor: name.into(),
                files: "the model's weight files".into(),
            },
        };
        let kept = tensors.get_mut(name).ok_or_else(missing)?;
        match &mut kept.uses {
            Some(1) => Ok(tensors.remove(name).ok_or_else(missing)?.tensor),
            Some(uses) => {
                *uses -= 1;
                Ok(kept.tensor.clone())
            }
            None => Ok(kept.tensor.clone()),
        }
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.take(name)?;
        check_shape(name, &shape, tensor.dims())?;
        tensor.to_device(device)?.to_dtype(dtype)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.take(name)?.to_device(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(uses: Option<u32>) -> Weights {
        let mut weights = Weights::default();
        let tensor = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).expect("a tensor");
        weights.insert("a".into(), tensor, uses);
        weights
    }

    #[test]
    fn a_tensor_leaves_with_its_last_use_and_is_still_known() {
        let weights = weights(Some(2));
        assert!(weights.take("a").is_ok());
        assert!(weights.take("a").is_ok());
        assert!(weights.take("a").is_err(), "nothing is held twice");
        assert!(weights.contains_tensor("a"));
    }

    #[test]
    fn an_unchecked_tensor_stays_until_the_pipeline_is_built() {
        let weights = weights(None);
        assert!((0..3).all(|_| weights.take("a").is_ok()));
    }

    #[test]
    fn a_wrong_shape_comes_back_as_our_own_error() {
        let vb = weights(None).into_var_builder(DType::F32, Device::Cpu);
        let error = LoadError::from(vb.get((3, 2), "a").expect_err("it is 2 by 3"));
        assert!(matches!(error, LoadError::WrongShape { .. }), "{error}");
    }
}
