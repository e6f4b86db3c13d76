//! [`ModelStatus`]: the property API.

use std::sync::Arc;

use bevy::prelude::*;

use crate::{LoadError, ModelId, ModelState, Progress, ReleaseReport};

/// What a [`ModelManager`](crate::ModelManager) reads as: plain fields, without a call.
///
/// A game that shows several kinds of models in one list can pass it around without their type.
#[derive(Clone, Debug, Default, Reflect)]
#[reflect(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ModelStatus {
    /// Where the model is in its life; in `Update` always equal to the Bevy state.
    pub current_state: ModelState,
    /// The model that is loading, loaded or unloading.
    pub model_id: Option<ModelId>,
    /// The model that the game wants now: [`None`] after an `unload`, the loaded one after a `cancel` of another.
    pub wanted: Option<ModelId>,
    /// The size of the model's pictures, width by height in pixels; [`None`] where it makes none, and
    /// while nothing is loaded.
    pub sample_size: Option<UVec2>,
    /// How far the load is.
    pub progress: Progress,
    /// Bytes claimed on the device for the weights of the model that is loading, loaded or unloading. Its jobs and
    /// parked models are in [`ResourceManager`](crate::ResourceManager).
    pub memory: u64,
    /// Why the last load failed, or the device under the model; gone with the next load.
    pub last_error: Option<Arc<LoadError>>,
    /// What the last unload or cancelled load gave back.
    pub last_release: Option<ReleaseReport>,
    /// Counts the loads of this manager, from 1.
    pub generation: u64,
}
