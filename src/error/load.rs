//! [`LoadError`]: why a model could not be loaded.

use std::io;

use bevy::reflect::TypePath;
use candle_core::DType;
use thiserror::Error;

use super::BoxedSource;

/// Says why a model could not be loaded.
///
/// It is data: the model is [`ModelState::Failed`](crate::ModelState::Failed), with this as its
/// [`last_error`](crate::ModelStatus::last_error). No system of this crate ever returns an `Err`, since in Bevy that would
/// end the game. [`ErrorChain`](crate::ErrorChain) prints it with its causes.
///
/// ```
/// use bevy_candle::prelude::*;
///
/// fn advice(error: &LoadError) -> String {
///     match error {
///         LoadError::FileMissing { file, folder } => format!("copy {file} into {folder}"),
///         other => other.to_string(),
///     }
/// }
/// # let missing = LoadError::FileMissing { file: "config.json".into(), folder: "models/a".into() };
/// # assert_eq!(advice(&missing), "copy config.json into models/a");
/// ```
#[derive(Debug, Error, TypePath)]
#[non_exhaustive]
pub enum LoadError {
    /// The model's folder does not exist, or is no folder.
    #[error(
        "the model folder `{folder}` does not exist, or is no folder; relative paths start at the app's asset folder"
    )]
    FolderMissing {
        /// The folder as it was looked for.
        folder: String,
    },
    /// A file that the pipeline needs is not among the model's files.
    #[error("`{file}` is missing in the model `{folder}`")]
    FileMissing {
        /// The file's name inside the model.
        file: String,
        /// The model's folder or id.
        folder: String,
    },
    /// A file exists and cannot be read.
    #[error("failed to read `{file}`")]
    Io {
        /// The file's name inside the model.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is shorter than its header or its index says.
    #[error(
        "`{file}` is cut short: {expected} bytes expected, {found} found; copy or download it again"
    )]
    CutShort {
        /// The file's name inside the model.
        file: String,
        /// The length that was needed, in bytes.
        expected: u64,
        /// The length found, in bytes.
        found: u64,
    },
    /// A name inside the model points out of it, or is none.
    #[error(
        "`{name}` is not a name inside the model: no part may be empty, `.` or `..`, and there may be no `:`, \
         backslash or root; rename the file, and in the index that names it"
    )]
    UnsafeName {
        /// The refused name.
        name: String,
    },
    /// A JSON file is broken, or a field has the wrong type.
    #[error("`{file}` is not the JSON that was expected")]
    Json {
        /// The file's name inside the model.
        file: String,
        /// The line, the column and the reason.
        source: BoxedSource,
    },
    /// The header of a weight file is broken.
    #[error("`{file}` is not a valid safetensors file: {reason}")]
    Header {
        /// The file's name inside the model.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights are only there as a pickle. Such files are programs, and are not read.
    #[error(
        "`{file}` is a pickle, which could run any code, and is not read; bring the weights as safetensors, as \
         diffusers' `save_pretrained` or Python's `safetensors.torch.save_file` writes them"
    )]
    Pickle {
        /// The file's name inside the model.
        file: String,
    },
    /// A key of a configuration has a value that this pipeline does not implement.
    #[error("`{file}`: `{key}` is {value}, which is not supported; {expected}")]
    UnsupportedOption {
        /// The configuration file.
        file: String,
        /// The key.
        key: String,
        /// The value found, as JSON.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A weight that the architecture needs is in none of the files.
    #[error("the tensor `{tensor}` is missing in {files}")]
    MissingTensor {
        /// The tensor's full name.
        tensor: String,
        /// The files that were searched.
        files: String,
    },
    /// A weight has another shape than the configuration says.
    #[error(
        "the tensor `{tensor}` has the shape {found:?}, but the configuration asks for {expected:?}"
    )]
    WrongShape {
        /// The tensor's full name.
        tensor: String,
        /// The shape that the architecture asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A weight is stored in a number format that candle does not compute with.
    #[error(
        "the tensor `{tensor}` is stored as {found}, which cannot be read; store it as F32, F16 or BF16"
    )]
    UnsupportedDtype {
        /// The tensor's full name.
        tensor: String,
        /// The format in the file.
        found: String,
    },
    /// The model cannot run in the number format that the source asks for.
    #[error("the model cannot run in {dtype:?}; {expected}")]
    UnsupportedRunDtype {
        /// The format asked for.
        dtype: DType,
        /// What would be accepted.
        expected: String,
    },
    /// The model is larger than what the memory budget leaves, and no eviction can help.
    #[error(
        "{needed} bytes are needed, but {in_use} of the budget of {budget} bytes are in use; \
         unload or unpin a model, or raise `CandlePlugin::memory_budget`"
    )]
    OverBudget {
        /// Bytes that the model claims.
        needed: u64,
        /// Bytes of the device's whole budget.
        budget: u64,
        /// Bytes claimed by others.
        in_use: u64,
    },
    /// The system, or the container that the process runs in, has less memory left than the model needs.
    #[error(
        "{needed} bytes are needed, but the system has only {available} left; \
         unload a model or close other programs"
    )]
    NotEnoughMemory {
        /// Bytes that the model needs.
        needed: u64,
        /// Bytes that the system could still give.
        available: u64,
    },
    /// The system refused the memory for a tensor.
    #[error(
        "{bytes} bytes for the tensor `{tensor}` could not be allocated; \
         unload a model or close other programs"
    )]
    OutOfMemory {
        /// The tensor's full name.
        tensor: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The device's own memory is used up, by this process or by others.
    #[error(
        "{needed} bytes are needed, but the device has only {free} left; \
         unload a model or close other programs that use it"
    )]
    DeviceOutOfMemory {
        /// Bytes that the model needs.
        needed: u64,
        /// Bytes that the device could still give.
        free: u64,
    },
    /// The device's driver has given it up: an illegal address, a failed launch or broken memory. It is not tried again,
    /// since every call would fail until the process ends.
    #[error("the device {device} cannot be used until the game is started again: {reason}")]
    DeviceUnusable {
        /// The device, such as `Cuda(0)`.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The device could not be opened, or is not compiled in.
    #[error("the device {device} cannot be used")]
    Device {
        /// The device, such as `Cuda(0)`.
        device: String,
        /// Why.
        source: BoxedSource,
    },
    /// The threads that read models could not be started.
    #[error("the threads that read models could not be started; the system may have too many")]
    Threads {
        /// What the operating system said.
        source: io::Error,
    },
    /// The load ended before it was done, with the threads that worked on it.
    #[error("the load ended before it was done; load again")]
    Interrupted,
    /// The device's thread ended while it held the model.
    #[error("the device's thread ended while it held the model; load again")]
    DeviceLost,
    /// The pipeline could not be put together from its weights.
    #[error("failed to build the pipeline")]
    Build {
        /// What the pipeline said.
        source: BoxedSource,
    },
    /// The pipeline's code panicked. The app and its other models go on.
    #[error("the pipeline panicked in {phase}: {message}")]
    Panicked {
        /// What panicked: `plan`, `read`, `build`, `warm_up` or `sample_size`. More may come.
        phase: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The platform, the web or Android, is not supported yet.
    #[error("models cannot be loaded on this platform yet")]
    Unsupported,
}

impl LoadError {
    /// Wraps a broken JSON file.
    pub(crate) fn json(file: &str, source: impl Into<BoxedSource>) -> Self {
        Self::Json {
            file: file.into(),
            source: source.into(),
        }
    }

    /// Wraps a broken safetensors header.
    pub(crate) fn header(file: &str, reason: impl ToString) -> Self {
        Self::Header {
            file: file.into(),
            reason: reason.to_string(),
        }
    }

    /// Wraps any other reason why a pipeline cannot be built, for pipelines of your own.
    pub fn build(source: impl Into<BoxedSource>) -> Self {
        Self::Build {
            source: source.into(),
        }
    }
}

impl From<candle_core::Error> for LoadError {
    /// Gets a [`LoadError`] that went through candle back as it was; boxes any other.
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error::{Context, WithBacktrace, WithPath, WrappedContext};
        match error {
            Context { inner, .. } | WithPath { inner, .. } | WithBacktrace { inner, .. } => {
                (*inner).into()
            }
            WrappedContext { wrapped, .. } => wrapped
                .downcast::<Self>()
                .map_or_else(Self::build, |ours| *ours),
            other => Self::build(other),
        }
    }
}

impl From<LoadError> for candle_core::Error {
    fn from(error: LoadError) -> Self {
        let context = error.to_string();
        Self::WrappedContext {
            wrapped: Box::new(error),
            context,
        }
    }
}
