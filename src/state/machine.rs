//! [`StateManager`]: the machine itself, without Bevy, threads or clock.

use bevy::prelude::*;

use super::{ModelState, TransitionReason};

/// What the game wants, seen from what the machine is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[non_exhaustive]
pub enum Wish {
    /// Nothing new: stay.
    #[default]
    AsIs,
    /// No model.
    Nothing,
    /// The model that is loading, loaded, or failed.
    Current,
    /// The model that is loaded or failed, read anew.
    Anew,
    /// Another model.
    Other,
}

impl Wish {
    /// Whether a model is wanted that would have to be loaded from Idle.
    pub(crate) const fn is_load(self) -> bool {
        matches!(self, Self::Current | Self::Anew | Self::Other)
    }
}

/// Why a loaded model goes although the game still wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum Leave {
    /// It makes room for another.
    Evicted,
    /// It was not used for its time-out.
    Expired,
}

/// How a load or a model ended, once the last of its bytes was back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum Ended {
    /// It was let go.
    Released,
    /// It failed by itself.
    Failed,
}

/// Everything that the machine decides on.
///
/// More fields will come: end with `..default()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
pub struct Facts {
    /// What the game wants.
    pub wish: Wish,
    /// The load is built and warmed up.
    pub built: bool,
    /// The load or the model has ended.
    pub ended: Option<Ended>,
    /// Enough time has passed since the same model failed.
    pub retry_due: bool,
    /// A loaded model has to go.
    pub leave: Option<Leave>,
    /// The wanted model has gone by itself: a job brings it back, and a new request makes this false.
    pub asleep: bool,
    /// A job waits for the model.
    pub job_waits: bool,
    /// Memory of a model that was parked is on its way back.
    pub releasing: bool,
}

/// What the machine asks its owner to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Reflect)]
#[non_exhaustive]
pub enum ModelAction {
    /// Start to load the wanted model.
    Start,
    /// Let go of the load or the model: dropping is cancelling.
    Drop,
}

/// One answer of the machine: at most one action and at most one edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[non_exhaustive]
pub struct Step {
    /// What is to be done.
    pub action: Option<ModelAction>,
    /// The edge that was taken.
    pub edge: Option<(ModelState, TransitionReason)>,
}

impl Step {
    const STAY: Self = Self {
        action: None,
        edge: None,
    };

    fn edge(to: ModelState, reason: TransitionReason) -> Self {
        Self {
            action: None,
            edge: Some((to, reason)),
        }
    }

    fn with(self, action: ModelAction) -> Self {
        Self {
            action: Some(action),
            ..self
        }
    }
}

/// The state machine of one model: compares what is wanted with what is, one step a frame.
///
/// 1. Wishes are looked at before events: a load that finished just before a cancel never shows Loaded.
/// 2. Every way back to Idle or Failed waits until the memory has returned.
/// 3. A wish that cannot be met yet waits: the machine never skips a state.
///
/// ```
/// use bevy_candle::machine::{Facts, ModelAction, StateManager, Wish};
/// use bevy_candle::{ModelState, TransitionReason};
///
/// let mut machine = StateManager::default();
/// let step = machine.step(Facts { wish: Wish::Other, ..Default::default() });
/// assert_eq!(step.action, Some(ModelAction::Start));
/// assert_eq!(step.edge, Some((ModelState::Loading, TransitionReason::LoadRequested)));
/// ```
#[derive(Clone, Debug, Default, Reflect)]
pub struct StateManager {
    state: ModelState,
    leaving: Option<TransitionReason>,
}

impl StateManager {
    /// Returns the state.
    pub const fn state(&self) -> ModelState {
        self.state
    }

    /// Returns whether a load was let go whose memory is not back yet.
    pub const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Decides on the next step and takes it.
    pub fn step(&mut self, facts: Facts) -> Step {
        let step = match self.state {
            ModelState::Idle => Self::when_idle(facts),
            ModelState::Loading => self.when_loading(facts),
            ModelState::Loaded => Self::when_loaded(facts),
            ModelState::Unloading => Self::when_unloading(facts),
            ModelState::Failed => Self::when_failed(facts),
        };
        if let Some((to, _)) = step.edge {
            self.enter(to);
        }
        step
    }

    /// Takes the edges that are left when the app ends: the model was let go, and `released` says
    /// whether its memory is back.
    pub fn shut_down(&mut self, released: bool) -> Vec<(ModelState, TransitionReason)> {
        let mut edges = Vec::new();
        if self.state == ModelState::Loaded {
            edges.push((ModelState::Unloading, TransitionReason::Shutdown));
        }
        if released
            && matches!(
                self.state,
                ModelState::Loading | ModelState::Loaded | ModelState::Unloading
            )
        {
            edges.push((ModelState::Idle, TransitionReason::Shutdown));
        }
        for (to, _) in &edges {
            self.enter(*to);
        }
        edges
    }

    fn enter(&mut self, to: ModelState) {
        debug_assert!(
            self.state.can_become(to),
            "{:?} -> {to:?} is no edge",
            self.state
        );
        self.state = to;
        self.leaving = None;
    }

    fn when_idle(facts: Facts) -> Step {
        match (facts.wish.is_load(), facts.asleep) {
            (true, false) => Self::start(TransitionReason::LoadRequested),
            (true, true) if facts.job_waits => Self::start(TransitionReason::JobRequested),
            _ => Step::STAY,
        }
    }

    fn when_failed(facts: Facts) -> Step {
        match facts.wish {
            Wish::Nothing if facts.releasing => Step::STAY,
            Wish::Nothing => Step::edge(ModelState::Idle, TransitionReason::Reset),
            Wish::Other | Wish::Anew => Self::start(TransitionReason::LoadRequested),
            Wish::Current if facts.retry_due => Self::start(TransitionReason::LoadRequested),
            Wish::Current | Wish::AsIs => Step::STAY,
        }
    }

    fn start(reason: TransitionReason) -> Step {
        Step::edge(ModelState::Loading, reason).with(ModelAction::Start)
    }

    fn when_loading(&mut self, facts: Facts) -> Step {
        let let_go = match facts.wish {
            Wish::Nothing => Some(TransitionReason::LoadCancelled),
            Wish::Other => Some(TransitionReason::Superseded),
            Wish::AsIs | Wish::Current | Wish::Anew => None,
        };
        let stops_now = self.leaving.is_none() && let_go.is_some();
        self.leaving = self.leaving.or(let_go);
        let step = match (self.leaving, facts.ended) {
            (Some(reason), Some(_)) => Step::edge(ModelState::Idle, reason),
            (None, Some(_)) => Step::edge(ModelState::Failed, TransitionReason::LoadFailed),
            (None, None) if facts.built => {
                Step::edge(ModelState::Loaded, TransitionReason::LoadCompleted)
            }
            (_, None) => Step::STAY,
        };
        if stops_now {
            step.with(ModelAction::Drop)
        } else {
            step
        }
    }

    fn when_loaded(facts: Facts) -> Step {
        let reason = match (facts.wish, facts.leave) {
            _ if facts.ended.is_some() => TransitionReason::ReleaseFailed,
            (Wish::Nothing, _) => TransitionReason::UnloadRequested,
            (Wish::Other, _) => TransitionReason::Superseded,
            (Wish::Anew, _) => TransitionReason::Reload,
            (Wish::AsIs | Wish::Current, Some(Leave::Evicted)) => TransitionReason::Evicted,
            (Wish::AsIs | Wish::Current, Some(Leave::Expired)) => TransitionReason::Expired,
            (Wish::AsIs | Wish::Current, None) => return Step::STAY,
        };
        Step::edge(ModelState::Unloading, reason).with(ModelAction::Drop)
    }

    fn when_unloading(facts: Facts) -> Step {
        match facts.ended {
            Some(Ended::Released) => {
                Step::edge(ModelState::Idle, TransitionReason::UnloadCompleted)
            }
            Some(Ended::Failed) => Step::edge(ModelState::Failed, TransitionReason::ReleaseFailed),
            None => Step::STAY,
        }
    }
}

#[cfg(test)]
mod tests;
