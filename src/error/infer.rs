//! [`InferError`]: why a job ended without an output.

use std::{error::Error, sync::Arc};

use thiserror::Error;

use super::{BoxedSource, LoadError};

/// Says why a job ended without an output.
///
/// It is data: the `Err` of the job's [`Inferred`](crate::Inferred) event. [`ErrorChain`](crate::ErrorChain) prints it with
/// its causes.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum InferError {
    /// No model is loaded, and none is wanted; or no [`ModelPlugin`](crate::ModelPlugin) of the kind was added.
    #[error("no model is loaded and none is wanted; call `ModelManager::load` first")]
    NotLoaded,
    /// The model that the job waited for failed to load.
    #[error("the model failed to load")]
    ModelFailed(#[source] Arc<LoadError>),
    /// The model was unloaded, reloaded or replaced before the job was done.
    #[error("the model was unloaded before the job was done")]
    Unloaded,
    /// The job is done, and another observer has its output: see [`Inferred::take`](crate::Inferred::take).
    #[error("another observer has taken the job's output")]
    Taken,
    /// The job's working memory does not fit beside its model and what cannot be evicted.
    #[error(
        "{needed} bytes are needed for the job, but {in_use} of the budget of {budget} bytes are in use; \
         ask for less at once or raise `CandlePlugin::memory_budget`"
    )]
    OverBudget {
        /// Bytes that the job needs on top of its model.
        needed: u64,
        /// Bytes of the device's whole budget.
        budget: u64,
        /// Bytes claimed at that moment, the model's own included.
        in_use: u64,
    },
    /// The device's own memory was used up while the job ran. The model stays loaded, and the next job runs.
    #[error(
        "the job needs {needed} bytes on top of its model, but the device has only {free} left; \
         ask for less at once or unload a model"
    )]
    DeviceOutOfMemory {
        /// Bytes that the job had claimed on top of its model.
        needed: u64,
        /// Bytes that the device could still give.
        free: u64,
    },
    /// The pipeline panicked. The model stays loaded, and the next job runs.
    #[error("the pipeline panicked: {0}")]
    Panicked(String),
    /// A field of the request has a value that the model cannot serve.
    #[error("`{field}` is {value}, but the model needs {expected}")]
    InvalidRequest {
        /// The request's field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The pipeline returned an error, or its device was lost: then the source is the [`LoadError`] that its model fails
    /// with.
    #[error("failed to run the pipeline")]
    Failed(#[source] Arc<dyn Error + Send + Sync + 'static>),
}

impl InferError {
    /// Refuses a field of a request, for pipelines of your own.
    ///
    /// ```
    /// use bevy_candle::InferError;
    ///
    /// let error = InferError::invalid_request("steps", 0, "at least one step");
    /// assert_eq!(error.to_string(), "`steps` is 0, but the model needs at least one step");
    /// ```
    pub fn invalid_request(
        field: &'static str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidRequest {
            field,
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// Wraps any other reason, for pipelines of your own.
    pub fn failed(source: impl Into<BoxedSource>) -> Self {
        Self::Failed(Arc::from(source.into()))
    }
}

impl From<candle_core::Error> for InferError {
    fn from(error: candle_core::Error) -> Self {
        Self::failed(error)
    }
}
