//! [`Plan`]: everything about a model that is known before its weights are read.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Shape};
use candle_nn::VarBuilder;

use super::{
    safetensors::{read_header, readable},
    shards::{Shards, Weights, find_weights},
};
use crate::{DeviceChoice, LoadError, ModelFiles};

mod dry_run;
use dry_run::HeadersOnly;

/// What [`Pipeline::plan`](crate::Pipeline::plan) returns: the configuration, and which weights to read.
///
/// 1. [`Plan::new`] takes the configuration.
/// 2. [`weights`](Self::weights) adds the tensors of a safetensors file, or of its shards, from their headers.
/// 3. [`check`](Self::check) runs the code that builds the modules over the headers alone: what is
///    missing or has another shape is an error here, before memory is claimed, and what no module asks
///    for is not read.
///
/// [`check_dtype`](Self::check_dtype) refuses what the modules cannot run in.
///
/// ```
/// use bevy_candle::{LoadError, ModelFiles, Plan, candle_nn::linear};
///
/// struct Config { inputs: usize, outputs: usize }
///
/// fn plan(files: &dyn ModelFiles) -> Result<Plan<Config>, LoadError> {
///     Plan::new(Config { inputs: 4, outputs: 2 })
///         .weights(files, "model.safetensors")?
///         .check(|config, vb| linear(config.inputs, config.outputs, vb.pp("head")))
/// }
/// ```
#[derive(Debug)]
pub struct Plan<C> {
    config: C,
    files: Vec<Arc<str>>,
    /// How many tensors the headers list, wanted or not.
    listed: usize,
    tensors: BTreeMap<Arc<str>, TensorPlan>,
    dtype_check: DtypeCheck,
}

/// Refuses number formats on a device.
type DtypeCheck = fn(DType, DeviceChoice) -> Result<(), LoadError>;

/// The most tensors of one model, over all its files, whether anybody asks for them or not.
const MAX_TENSORS: usize = 200_000;

/// One tensor to read.
#[derive(Clone, Debug)]
pub(crate) struct TensorPlan {
    pub(crate) file: Arc<str>,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) stored: DType,
    /// The format to run in, where the pipeline asked for a particular one.
    pub(crate) wanted: Option<DType>,
    /// How often the modules ask for it, where that was checked.
    pub(crate) uses: Option<u32>,
}

impl TensorPlan {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the file.
    pub(crate) fn stored_bytes(&self) -> u64 {
        bytes(self.elements(), self.stored)
    }

    /// The format in memory: floats become the run's format, anything else stays.
    pub(crate) fn run_dtype(&self, run: DType) -> DType {
        if self.stored.is_float() {
            self.wanted.unwrap_or(run)
        } else {
            self.stored
        }
    }

    /// Bytes in memory.
    pub(crate) fn run_bytes(&self, run: DType) -> u64 {
        bytes(self.elements(), self.run_dtype(run))
    }
}

/// The bytes of so many numbers. A file of holes can claim more in its own format than there is in another.
fn bytes(elements: usize, dtype: DType) -> u64 {
    (elements as u64).saturating_mul(dtype.size_in_bytes() as u64)
}

/// Adds up bytes. Several files can claim more together than there is.
pub(super) fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

impl<C> Plan<C> {
    /// Starts a plan without weights.
    pub fn new(config: C) -> Self {
        Self {
            config,
            files: Vec::new(),
            listed: 0,
            tensors: BTreeMap::new(),
            dtype_check: |_, _| Ok(()),
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// Adds all tensors of a safetensors file, or of the files that `{file}.index.json` names. Reads headers only.
    ///
    /// # Errors
    /// [`LoadError::CutShort`] and [`LoadError::Header`] for a broken file,
    /// [`LoadError::UnsupportedDtype`] for formats that candle cannot compute with,
    /// [`LoadError::Json`] and [`LoadError::UnsafeName`] for a broken index, [`LoadError::MissingTensor`] where it
    /// names a tensor that its file does not have, [`LoadError::Pickle`] where there is only a file that
    /// `torch.save` wrote, and what `files` itself says.
    pub fn weights(self, files: &dyn ModelFiles, file: &str) -> Result<Self, LoadError> {
        match find_weights(files, file)? {
            Weights::Whole => self.add_file(files, file, |_| true),
            Weights::Shards(shards) => self.add_shards(files, &shards),
        }
    }

    /// Of each shard what the index says is there, and all of that.
    fn add_shards(mut self, files: &dyn ModelFiles, shards: &Shards) -> Result<Self, LoadError> {
        for file in shards.files() {
            let is_there = |tensor: &str| shards.file_of.get(tensor).is_some_and(|of| of == file);
            self = self.add_file(files, file, is_there)?;
        }
        match shards
            .file_of
            .iter()
            .find(|(tensor, _)| !self.tensors.contains_key(tensor.as_str()))
        {
            Some((tensor, file)) => Err(LoadError::MissingTensor {
                tensor: tensor.clone(),
                files: file.clone(),
            }),
            None => Ok(self),
        }
    }

    fn add_file(
        mut self,
        files: &dyn ModelFiles,
        file: &str,
        wants: impl Fn(&str) -> bool,
    ) -> Result<Self, LoadError> {
        let header = read_header(files, file)?;
        let file: Arc<str> = file.into();
        let tensors = header.tensors.tensors();
        self.listed += tensors.len();
        if self.listed > MAX_TENSORS {
            let reason =
                format!("with the files before it, it has more than {MAX_TENSORS} tensors");
            return Err(LoadError::header(&file, reason));
        }
        for (name, info) in tensors.iter().filter(|(name, _)| wants(name)) {
            let stored = readable(info.dtype).ok_or_else(|| LoadError::UnsupportedDtype {
                tensor: name.clone(),
                found: format!("{:?}", info.dtype),
            })?;
            let tensor = TensorPlan {
                file: file.clone(),
                offset: header.data_start + info.data_offsets.0 as u64,
                shape: info.shape.clone(),
                stored,
                wanted: None,
                uses: None,
            };
            if self.tensors.insert(name.as_str().into(), tensor).is_some() {
                return Err(LoadError::header(
                    &file,
                    format!("the tensor `{name}` is in an earlier file, too"),
                ));
            }
        }
        self.files.push(file);
        Ok(self)
    }

    /// Runs `build` over the headers, with tensors that have a shape and no memory, and keeps only what
    /// it asked for. What `build` returns is dropped.
    ///
    /// [`Pipeline::build`](crate::Pipeline::build) then asks for the same tensors, each as often as here: one that was asked for
    /// less is an error there. The format that the weights run in is not known yet, and `vb.dtype()` is a stand-in:
    /// what depends on it belongs into [`check_dtype`](Self::check_dtype).
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`] and [`LoadError::WrongShape`], and what `build` itself says.
    pub fn check<T, E: Into<LoadError>>(
        mut self,
        build: impl FnOnce(&C, VarBuilder<'static>) -> Result<T, E>,
    ) -> Result<Self, LoadError> {
        let tensors = std::mem::take(&mut self.tensors);
        let build = |vb| build(&self.config, vb).map_err(Into::into);
        self.tensors = HeadersOnly::asked(tensors, &self.files, build)?;
        Ok(self)
    }

    /// Refuses number formats that the modules cannot run in on a device, with
    /// [`LoadError::UnsupportedRunDtype`]. `check` is asked once the load is planned, before a weight is read; it gets the
    /// device that the model would run on, never [`Auto`](DeviceChoice::Auto).
    #[must_use]
    pub fn check_dtype(mut self, check: fn(DType, DeviceChoice) -> Result<(), LoadError>) -> Self {
        self.dtype_check = check;
        self
    }

    pub(crate) fn ensure_runs_in(
        &self,
        dtype: DType,
        device: DeviceChoice,
    ) -> Result<(), LoadError> {
        (self.dtype_check)(dtype, device)
    }

    pub(crate) fn into_parts(self) -> (C, BTreeMap<Arc<str>, TensorPlan>) {
        (self.config, self.tensors)
    }
}

/// Refuses a tensor that has another shape than the modules ask for.
pub(super) fn check_shape(name: &str, expected: &Shape, found: &[usize]) -> Result<(), LoadError> {
    let expected = expected.dims();
    if expected == found {
        return Ok(());
    }
    Err(LoadError::WrongShape {
        tensor: name.into(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Tensor};
    use candle_nn::linear;

    use super::*;
    use crate::source::MemoryFiles;

    fn files() -> MemoryFiles {
        let tensor =
            |shape: &[usize]| Tensor::zeros(shape, DType::F16, &Device::Cpu).expect("a tensor");
        let tensors = HashMap::from([
            ("a.weight", tensor(&[2, 3])),
            ("a.bias", tensor(&[2])),
            ("unused", tensor(&[1000])),
        ]);
        MemoryFiles::new([(
            "m.safetensors",
            safetensors::serialize(&tensors, None).expect("bytes"),
        )])
    }

    fn plan() -> Plan<()> {
        Plan::new(())
            .weights(&files(), "m.safetensors")
            .expect("a plan")
    }

    #[test]
    fn a_checked_plan_reads_only_what_the_modules_ask_for() {
        let (_, all) = plan().into_parts();
        assert_eq!(all.len(), 3);
        let (_, asked) = plan()
            .check(|(), vb| linear(3, 2, vb.pp("a")))
            .expect("it fits")
            .into_parts();
        let names: Vec<_> = asked.keys().map(|name| &**name).collect();
        assert_eq!(names, ["a.bias", "a.weight"]);
        assert_eq!(asked["a.weight"].stored_bytes(), 12);
        assert_eq!(asked["a.weight"].run_bytes(DType::F32), 24);
        assert_eq!(asked["a.weight"].uses, Some(1));
    }

    #[test]
    fn a_missing_tensor_and_a_wrong_shape_are_errors_with_their_names() {
        let missing = plan()
            .check(|(), vb| linear(3, 2, vb.pp("b")))
            .expect_err("no b");
        assert!(
            matches!(&missing, LoadError::MissingTensor { tensor, files } if tensor == "b.weight" && files == "m.safetensors"),
            "{missing}"
        );
        let wrong = plan()
            .check(|(), vb| linear(4, 2, vb.pp("a")))
            .expect_err("4 is not 3");
        assert!(
            matches!(&wrong, LoadError::WrongShape { tensor, expected, found }
                if tensor == "a.weight" && *expected == [2, 4] && *found == [2, 3]),
            "{wrong}"
        );
    }

    #[test]
    fn a_number_format_that_candle_lacks_is_an_error_with_its_name() {
        let header = r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.push(0);
        let files = MemoryFiles::new([("m.safetensors", bytes)]);
        let refused = Plan::new(()).weights(&files, "m.safetensors");
        let error = refused.expect_err("a format of eight bits");
        assert!(
            matches!(&error, LoadError::UnsupportedDtype { tensor, found } if tensor == "a" && found == "F8_E4M3"),
            "{error}"
        );
    }

    #[test]
    fn checking_takes_no_memory_for_weights() {
        let header =
            r#"{"big":{"dtype":"F32","shape":[262144,1048576],"data_offsets":[0,1099511627776]}}"#;
        struct Huge(Vec<u8>);
        impl ModelFiles for Huge {
            fn names(&self) -> Result<Vec<String>, LoadError> {
                Ok(vec!["m.safetensors".into()])
            }
            fn len(&self, _: &str) -> Result<u64, LoadError> {
                Ok(self.0.len() as u64 + (1 << 40))
            }
            fn read_at(&self, _: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
                buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
                Ok(())
            }
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        let plan = Plan::new(())
            .weights(&Huge(bytes), "m.safetensors")
            .expect("a plan");
        let plan = plan
            .check(|(), vb| vb.get((262_144, 1_048_576), "big"))
            .expect("a terabyte of nothing");
        assert_eq!(plan.into_parts().1["big"].run_bytes(DType::F32), 1 << 40);
    }

    #[test]
    fn tensors_that_nobody_asks_for_count_against_the_limit() {
        let tensor = |i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let tensors: Vec<_> = (0..MAX_TENSORS / 2 - 1).map(tensor).collect();
        let header = format!("{{{}}}", tensors.join(","));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        let index = r#"{"weight_map": {"a": "1", "b": "2", "c": "3"}}"#;
        let files = MemoryFiles::new([
            ("m.safetensors.index.json", index.as_bytes().to_vec()),
            ("1", file.clone()),
            ("2", file.clone()),
            ("3", file),
        ]);
        let refused = Plan::new(()).weights(&files, "m.safetensors");
        let error = refused.expect_err("too many").to_string();
        assert!(error.contains("`3`") && error.contains("200000"), "{error}");
    }
}
