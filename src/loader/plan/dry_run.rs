//! [`HeadersOnly`]: stands in for the weights while a plan is checked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};

use super::{TensorPlan, check_shape};
use crate::LoadError;

/// Stands for the run's own format while a plan is checked: nobody asks for it otherwise.
const RUN_DTYPE: DType = DType::F64;

/// Answers with shapes, and remembers what was asked for.
pub(super) struct HeadersOnly {
    tensors: Tensors,
    files: String,
    asked: Arc<Mutex<Tensors>>,
}

type Tensors = BTreeMap<Arc<str>, TensorPlan>;

impl HeadersOnly {
    /// Returns what `build` asks for of the tensors of these files.
    pub(super) fn asked<T>(
        tensors: Tensors,
        files: &[Arc<str>],
        build: impl FnOnce(VarBuilder<'static>) -> Result<T, LoadError>,
    ) -> Result<Tensors, LoadError> {
        let asked = Arc::new(Mutex::new(Tensors::new()));
        let backend = Self {
            tensors,
            files: files.join(", "),
            asked: asked.clone(),
        };
        build(VarBuilder::from_backend(
            Box::new(backend),
            RUN_DTYPE,
            Device::Cpu,
        ))?;
        Ok(std::mem::take(
            &mut *asked.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    fn find(&self, name: &str) -> Result<&TensorPlan, LoadError> {
        self.tensors
            .get(name)
            .ok_or_else(|| LoadError::MissingTensor {
                tensor: name.into(),
                files: self.files.clone(),
            })
    }

    fn ask(&self, name: &str, dtype: DType) -> candle_core::Result<Tensor> {
        let known = self.find(name)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let tensor = asked.entry(name.into()).or_insert_with(|| known.clone());
        tensor.uses = Some(tensor.uses.unwrap_or_default() + 1);
        if dtype.is_float() && dtype != RUN_DTYPE {
            tensor.wanted = Some(dtype);
        }
        Tensor::zeros((), dtype, &Device::Cpu)?.broadcast_as(known.shape.as_slice())
    }
}

impl SimpleBackend for HeadersOnly {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        check_shape(name, &shape, &self.find(name)?.shape)?;
        self.ask(name, dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.ask(name, dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}
