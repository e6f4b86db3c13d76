//! What is written when a model changes its state.

use std::{fmt, marker::PhantomData};

use bevy::prelude::*;

use super::ModelState;
use crate::{ModelId, Pipeline};

/// Written for every change of a model's state, in the frame in which the change shows.
///
/// Systems in `OnExit`, `OnEnter` and `Update` of that frame can read it; those in
/// [`CandleShutdown`](crate::CandleShutdown) see the last ones.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// fn log(mut transitions: MessageReader<ModelTransition<DdpmPipeline>>) {
///     for change in transitions.read() {
///         info!("{:?} to {:?}: {:?}", change.from, change.to, change.reason);
///     }
/// }
/// # bevy::ecs::system::assert_is_system(log);
/// ```
#[derive(Message, Reflect)]
#[reflect(type_path = false, from_reflect = false, where P: Pipeline)]
pub struct ModelTransition<P: Pipeline> {
    /// The state before.
    pub from: ModelState,
    /// The state now.
    pub to: ModelState,
    /// Why it changed.
    pub reason: TransitionReason,
    /// The model it is about.
    pub model_id: Option<ModelId>,
    /// Counts the loads of this manager, from 1.
    pub generation: u64,
    #[reflect(ignore)]
    kind: PhantomData<fn() -> P>,
}

impl<P: Pipeline> ModelTransition<P> {
    pub(crate) fn new(
        from: ModelState,
        to: ModelState,
        reason: TransitionReason,
        model_id: Option<ModelId>,
        generation: u64,
    ) -> Self {
        Self {
            from,
            to,
            reason,
            model_id,
            generation,
            kind: PhantomData,
        }
    }
}

impl<P: Pipeline> Clone for ModelTransition<P> {
    fn clone(&self) -> Self {
        Self::new(
            self.from,
            self.to,
            self.reason,
            self.model_id.clone(),
            self.generation,
        )
    }
}

impl<P: Pipeline> fmt::Debug for ModelTransition<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            reason,
            generation,
            ..
        } = self;
        write!(f, "{from:?} -> {to:?} ({reason:?}, load {generation})")
    }
}

/// Why a model changed its state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug)]
#[non_exhaustive]
pub enum TransitionReason {
    /// `load` or `reload` asked for the model.
    LoadRequested,
    /// The model is built and warmed up.
    LoadCompleted,
    /// `cancel` or `unload` took the load back; its memory has returned.
    LoadCancelled,
    /// The game asked for another model.
    Superseded,
    /// The load failed; its memory has returned.
    LoadFailed,
    /// `unload` asked for the memory.
    UnloadRequested,
    /// The memory has returned, or the model is parked.
    UnloadCompleted,
    /// The device failed while it held or released the model.
    ReleaseFailed,
    /// `reload` asked for the same model anew.
    Reload,
    /// `unload` took a failed model back.
    Reset,
    /// The model made room for another, and is still wanted: a job, or a new `load`, brings it back.
    Evicted,
    /// The model was not used for its `keep_alive`, and is still wanted: a job, or a new `load`, brings it back.
    Expired,
    /// A job brought an evicted or expired model back.
    JobRequested,
    /// The app ends.
    Shutdown,
}
