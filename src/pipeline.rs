//! [`Pipeline`]: what a kind of model implements, and [`PipelineManager`], which holds the loaded one.
//!
//! [`DdpmPipeline`](ddpm::DdpmPipeline) is the pipeline that comes with this crate. A game brings its
//! own with [`Pipeline::plan`], [`Pipeline::build`] and [`Pipeline::infer`]:
//!
//! ```
//! use bevy_candle::prelude::*;
//! use bevy_candle::{candle::{Module, Tensor}, candle_nn::{Linear, VarBuilder, linear}};
//!
//! /// Four senses in, two urges out.
//! struct Instinct(Linear);
//!
//! impl Pipeline for Instinct {
//!     type Config = ();
//!     type Settings = ();
//!     type Request = Vec<[f32; 4]>;
//!     type Partial = ();
//!     type Output = Vec<Vec<f32>>;
//!
//!     fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
//!         Plan::new(()).weights(files, "model.safetensors")?.check(|(), vb| linear(4, 2, vb))
//!     }
//!
//!     async fn build(_: (), weights: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
//!         Ok(Self(linear(4, 2, weights)?))
//!     }
//!
//!     async fn infer(&self, senses: Vec<[f32; 4]>, _: Steps<Self>) -> Result<Vec<Vec<f32>>, InferError> {
//!         let senses = Tensor::from_vec(senses.concat(), (senses.len(), 4), self.0.weight().device())?;
//!         Ok(self.0.forward(&senses)?.to_vec2()?)
//!     }
//! }
//! ```

use std::future::Future;

use bevy::math::UVec2;
use candle_nn::VarBuilder;

use crate::{
    InferError, LoadError, LoadSteps, ModelFiles, ModelId, Plan, Steps, infer::Job, loader::Load,
};

pub mod ddpm;
mod slot;

pub use slot::Slot;

/// One kind of model: how it is planned, built and used.
///
/// A value of it lives on the device thread, from [`build`](Self::build) to its drop, and need not be
/// [`Send`]. A panic in any method is caught and becomes an error.
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

    /// Puts the modules together, on the device thread. Awaits [`LoadSteps::next`] between them.
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

    /// Does the first work, so that the first job is not slow. Part of the load.
    ///
    /// # Errors
    /// What makes the model unusable after all.
    fn warm_up(&self, load: &LoadSteps) -> impl Future<Output = Result<(), LoadError>> {
        let _ = load;
        async { Ok(()) }
    }

    /// Returns the bytes that a job needs on top of the weights. Not used yet: jobs are not part of the
    /// memory budget.
    fn working_memory(&self, _request: &Self::Request) -> u64 {
        0
    }

    /// Returns the size of the pictures that the model makes, width by height in pixels.
    fn sample_size(&self) -> Option<UVec2> {
        None
    }
}

/// Holds the ticket of the loaded pipeline, its id and its settings; the pipeline itself never leaves
/// the device thread.
pub struct PipelineManager<P: Pipeline> {
    id: Option<ModelId>,
    load: Option<Load<P>>,
    settings: P::Settings,
}

impl<P: Pipeline> Default for PipelineManager<P> {
    fn default() -> Self {
        Self {
            id: None,
            load: None,
            settings: P::Settings::default(),
        }
    }
}

impl<P: Pipeline> PipelineManager<P> {
    /// Returns the id of the model that is loading or loaded.
    pub fn id(&self) -> Option<&ModelId> {
        self.id.as_ref()
    }

    /// Returns the settings for the next job. They survive a reload.
    pub fn settings(&self) -> &P::Settings {
        &self.settings
    }

    pub(crate) fn settings_mut(&mut self) -> &mut P::Settings {
        &mut self.settings
    }

    pub(crate) fn hold(&mut self, id: ModelId, load: Option<Load<P>>) {
        self.id = Some(id);
        self.load = load;
    }

    pub(crate) fn load(&self) -> Option<&Load<P>> {
        self.load.as_ref()
    }

    /// Lets go of the load or the model: the drop of the ticket cancels the one and unloads the other.
    pub(crate) fn let_go(&mut self) {
        self.load = None;
    }

    pub(crate) fn forget(&mut self) {
        self.load = None;
        self.id = None;
    }

    pub(crate) fn run(&self, job: Job<P>) {
        if let Some(load) = &self.load {
            load.run(job);
        }
    }
}
