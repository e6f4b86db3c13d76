//! The five states of a model, and the machine that moves between them.

use std::{
    any::type_name,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::Deref,
};

use bevy::prelude::*;

use crate::Pipeline;

mod machine;
mod mirror;
mod transition;

pub use self::machine::{Ended, Facts, Leave, ModelAction, StateManager, Step, Wish};
pub(crate) use mirror::{add_model_state, enter_first_states, mirror};
pub use transition::{ModelTransition, TransitionReason};

/// Where a model is in its life.
///
/// ```text
///            load                     done
///   Idle ───────────────► Loading ───────────► Loaded
///    ▲ ▲      cancelled    │   ▲                  │ unload, reload,
///    │ └───────────────────┤   │ load             │ another model
///    │        failed       ▼   │                  ▼
///    │ ◄──── reset ─────  Failed ◄── device ── Unloading
///    └──────────────── memory is back ────────────┘
/// ```
///
/// Only these edges exist: Idle → Loading; Loading → Loaded, Idle or Failed; Loaded → Unloading;
/// Unloading → Idle or Failed; Failed → Loading or Idle. Each state shows for at least one frame.
///
/// A game reads it in `manager.current_state`. The same state is a Bevy state, [`StateOf<P>`], so that `OnEnter`,
/// `OnExit`, `in_state`, `DespawnOnExit` and sub-states work:
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// # let mut app = App::new();
/// # app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()));
/// app.add_systems(OnEnter(ModelState::Loaded.of::<DdpmPipeline>()), || info!("ready"))
///     .add_systems(Update, draw.run_if(in_state(ModelState::Loaded.of::<DdpmPipeline>())));
/// # fn draw() {}
/// # app.update();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug, Default)]
pub enum ModelState {
    /// Nothing is loaded, and no memory is held but that of parked models
    /// ([`Residency::keep_parked`](crate::Residency::keep_parked)).
    #[default]
    Idle,
    /// A model is being planned, read, built and warmed up, or a cancelled or failed load
    /// gives its memory back.
    Loading,
    /// The model answers jobs.
    Loaded,
    /// The model is leaving: its memory is on its way back, or it is being parked.
    Unloading,
    /// The last load failed, or the device did; [`last_error`](crate::ModelStatus::last_error) says why. No
    /// memory is held but that of parked models.
    Failed,
}

impl ModelState {
    /// All states, in the order of a model's life.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Loading,
        Self::Loaded,
        Self::Unloading,
        Self::Failed,
    ];

    /// Returns this state as the Bevy state of the models of kind `P`.
    pub const fn of<P: Pipeline>(self) -> StateOf<P> {
        StateOf {
            state: self,
            kind: PhantomData,
        }
    }

    /// Returns whether a model is loaded, and answers jobs.
    pub const fn is_loaded(self) -> bool {
        matches!(self, Self::Loaded)
    }

    /// Returns whether a load or an unload is under way.
    pub const fn is_busy(self) -> bool {
        matches!(self, Self::Loading | Self::Unloading)
    }

    /// Returns whether a model may go from this state to `to` in one step.
    pub const fn can_become(self, to: Self) -> bool {
        use ModelState::*;
        matches!(
            (self, to),
            (Idle, Loading)
                | (Loading, Loaded | Idle | Failed)
                | (Loaded, Unloading)
                | (Unloading, Idle | Failed)
                | (Failed, Loading | Idle)
        )
    }
}

/// The [`ModelState`] of the models of kind `P`, as a Bevy state.
///
/// It is read only: it follows the [`ModelManager`](crate::ModelManager), and
/// `NextState<StateOf<P>>` does not compile.
#[derive(Reflect)]
#[reflect(type_path = false, where P: Pipeline)]
pub struct StateOf<P: Pipeline> {
    /// The state itself.
    pub state: ModelState,
    #[reflect(ignore)]
    kind: PhantomData<fn() -> P>,
}

impl<P: Pipeline> Clone for StateOf<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Pipeline> Copy for StateOf<P> {}

impl<P: Pipeline> Default for StateOf<P> {
    fn default() -> Self {
        ModelState::default().of()
    }
}

impl<P: Pipeline> PartialEq for StateOf<P> {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl<P: Pipeline> Eq for StateOf<P> {}

impl<P: Pipeline> PartialEq<ModelState> for StateOf<P> {
    fn eq(&self, other: &ModelState) -> bool {
        self.state == *other
    }
}

impl<P: Pipeline> Hash for StateOf<P> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.state.hash(hasher);
    }
}

impl<P: Pipeline> fmt::Debug for StateOf<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.state, type_name::<P>())
    }
}

impl<P: Pipeline> Deref for StateOf<P> {
    type Target = ModelState;

    fn deref(&self) -> &ModelState {
        &self.state
    }
}
