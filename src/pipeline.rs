//! [`Pipeline`]: what a kind of model implements.

use std::future::Future;

use bevy::math::UVec2;
use candle_nn::VarBuilder;

use crate::{InferError, LoadError, LoadSteps, ModelFiles, Plan, Steps};

pub mod ddpm;
mod slot;

pub use slot::Slot;

/// One kind of model: how it is planned, built and used.
///
/// A value of it lives on the device thread, from [`build`](Self::build) to its drop, and need not be
/// [`Send`]. A panic in any method is caught and becomes an error.
///
/// [`DdpmPipeline`](ddpm::DdpmPipeline) is the pipeline that comes with this crate. A game brings its own with
/// [`plan`](Self::plan), [`build`](Self::build) and [`infer`](Self::infer):
///
/// ```
/// use bevy_candle::prelude::*;
/// use bevy_candle::{candle::{Module, Tensor}, candle_nn::{Linear, VarBuilder, linear}};
///
/// /// Four senses in, two urges out.
/// struct Instinct(Linear);
///
/// impl Pipeline for Instinct {
///     type Config = ();
///     type Settings = ();
///     type Request = Vec<[f32; 4]>;
///     type Partial = ();
///     type Output = Vec<Vec<f32>>;
///
///     fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
///         Plan::new(()).weights(files, "model.safetensors")?.check(|(), vb| linear(4, 2, vb))
///     }
///
///     async fn build(_: (), weights: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
///         Ok(Self(linear(4, 2, weights)?))
///     }
///
///     async fn infer(&self, senses: Vec<[f32; 4]>, _: Steps<Self>) -> Result<Vec<Vec<f32>>, InferError> {
///         let senses = Tensor::from_vec(senses.concat(), (senses.len(), 4), self.0.weight().device())?;
///         Ok(self.0.forward(&senses)?.to_vec2()?)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of model",
    label = "not a `Pipeline`",
    note = "use `DdpmPipeline`, or implement `Pipeline` for `{Self}`: `plan`, `build` and `infer`"
)]
pub trait Pipeline: Sized + 'static {
    /// What is known from the configuration files.
    type Config: Send + 'static;
    /// What a game may change without a reload, such as the sampler.
    type Settings: Clone + Default + Send + Sync + 'static;
    /// What a job asks for: host data.
    type Request: Clone + Send + Sync + 'static;
    /// A preview: host data, cheap to clone.
    type Partial: Clone + Send + Sync + 'static;
    /// What a job gives: host data, never a tensor.
    type Output: Send + Sync + 'static;

    /// Reads the configuration and the headers of the weights, on a reader thread.
    ///
    /// # Errors
    /// Whatever makes the model unusable, before memory is claimed.
    fn plan(files: &dyn ModelFiles) -> Result<Plan<Self::Config>, LoadError>;

    /// Puts the modules together, on the device thread. Awaits [`LoadSteps::next`] between them. Asks for the tensors that
    /// the closure of [`Plan::check`] asked for, each no more often than there.
    ///
    /// # Errors
    /// What candle says, and what the plan could not know.
    fn build(
        config: Self::Config,
        weights: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> impl Future<Output = Result<Self, LoadError>>;

    /// Runs one job, on the device thread. Awaits [`Steps::next`] once a step.
    ///
    /// # Errors
    /// [`InferError::InvalidRequest`] where the model cannot serve the request.
    fn infer(
        &self,
        request: Self::Request,
        steps: Steps<Self>,
    ) -> impl Future<Output = Result<Self::Output, InferError>>;

    /// Does the first work, so that the first job is not slow. Part of the load. By default nothing is done.
    ///
    /// # Errors
    /// What makes the model unusable after all.
    fn warm_up(&self, load: &LoadSteps) -> impl Future<Output = Result<(), LoadError>> {
        let _ = load;
        async { Ok(()) }
    }

    /// Returns the bytes that a job needs on top of the weights: its activations at their peak, and what it
    /// gathers for its output. They are claimed of the device's budget before the job starts, which waits
    /// until they fit. A job that needs more than this says may exceed the budget. By default 0.
    fn working_memory(&self, request: &Self::Request) -> u64 {
        let _ = request;
        0
    }

    /// Returns the size of the pictures that the model makes, width by height in pixels. By default [`None`]: no
    /// pictures.
    fn sample_size(&self) -> Option<UVec2> {
        None
    }
}
