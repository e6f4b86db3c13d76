//! Runs [candle](https://github.com/huggingface/candle) models inside a Bevy game.

pub use candle_core as candle;
pub use candle_nn;

mod device;
mod error;
mod infer;
mod lifeline;
mod loader;
mod manager;
mod memory;
mod pipeline;
mod plugin;
mod schedule;
mod signal;
mod source;
mod state;
mod threads;

#[cfg(feature = "test_kit")]
pub mod test_kit;

pub use device::{DeviceChoice, on_device_thread};
pub use error::{BoxedSource, ErrorChain, InferError, LoadError};
pub use infer::{Infer, InferStep, Inferred, Steps};
pub use loader::{LoadPhase, LoadSteps, LoaderService, Plan, Progress};
pub use manager::{ModelManager, ModelStatus};
pub use memory::{ReleaseReport, ResourceManager};
pub use pipeline::{Pipeline, PipelineManager, ddpm};
pub use plugin::{CandlePlugin, ModelPlugin};
pub use schedule::{CandleShutdown, CandleSystems};
pub use source::{MemoryFiles, ModelFiles, ModelId, ModelSource, read_json};
pub use state::{
    Ended, Facts, ModelAction, ModelState, ModelTransition, StateManager, StateOf, Step,
    TransitionReason, Wish,
};

/// What most apps need: `use bevy_candle::prelude::*;`.
pub mod prelude {
    pub use crate::{
        CandlePlugin, CandleShutdown, CandleSystems, DeviceChoice, Infer, InferError, InferStep,
        Inferred, LoadError, LoadPhase, ModelFiles, ModelId, ModelManager, ModelPlugin,
        ModelSource, ModelState, ModelStatus, ModelTransition, Pipeline, Progress, ReleaseReport,
        ResourceManager, StateOf, TransitionReason,
        ddpm::{DdpmOutput, DdpmPipeline, DdpmRequest, DdpmSettings, Sampler},
    };
}
