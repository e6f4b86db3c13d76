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
    /// Returns whether a model is wanted that would have to be loaded from Idle.
    pub const fn is_load(self) -> bool {
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
    /// The wanted model has gone by itself, and only a job brings it back.
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
mod tests {
    use ModelState::*;
    use TransitionReason as R;

    use super::*;

    const WISHES: [Wish; 5] = [
        Wish::AsIs,
        Wish::Nothing,
        Wish::Current,
        Wish::Anew,
        Wish::Other,
    ];

    fn machine(state: ModelState, leaving: Option<R>) -> StateManager {
        StateManager { state, leaving }
    }

    fn every_fact() -> impl Iterator<Item = Facts> {
        WISHES.into_iter().flat_map(|wish| {
            [None, Some(Ended::Released), Some(Ended::Failed)]
                .into_iter()
                .flat_map(move |ended| {
                    (0..64).map(move |bits: u32| Facts {
                        wish,
                        built: bits & 1 != 0,
                        ended,
                        retry_due: bits & 2 != 0,
                        leave: (bits & 4 != 0).then_some(Leave::Evicted),
                        asleep: bits & 8 != 0,
                        job_waits: bits & 16 != 0,
                        releasing: bits & 32 != 0,
                    })
                })
        })
    }

    #[test]
    fn each_pair_of_states_is_an_edge_or_not() {
        let edges = [
            (Idle, Loading),
            (Loading, Loaded),
            (Loading, Idle),
            (Loading, Failed),
            (Loaded, Unloading),
            (Unloading, Idle),
            (Unloading, Failed),
            (Failed, Loading),
            (Failed, Idle),
        ];
        for from in ModelState::ALL {
            for to in ModelState::ALL {
                assert_eq!(
                    from.can_become(to),
                    edges.contains(&(from, to)),
                    "{from:?} -> {to:?}"
                );
            }
        }
    }

    #[test]
    fn whatever_the_facts_only_edges_of_the_list_are_taken() {
        let mut taken = std::collections::HashSet::new();
        for state in ModelState::ALL {
            for leaving in [None, Some(R::LoadCancelled)] {
                for facts in every_fact() {
                    let mut machine = machine(state, leaving);
                    if let Some((to, _)) = machine.step(facts).edge {
                        assert!(state.can_become(to), "{state:?} -> {to:?} with {facts:?}");
                        assert_eq!(machine.state(), to);
                        taken.insert((state, to));
                    } else {
                        assert_eq!(machine.state(), state);
                    }
                }
            }
        }
        assert_eq!(taken.len(), 9, "every edge of the list can be reached");
    }

    #[test]
    fn a_cancel_beats_a_load_that_just_finished() {
        let mut machine = machine(Loading, None);
        let step = machine.step(Facts {
            wish: Wish::Nothing,
            built: true,
            ..Default::default()
        });
        assert_eq!(step, Step::STAY.with(ModelAction::Drop));
        assert!(machine.is_leaving());
        let step = machine.step(Facts {
            wish: Wish::Nothing,
            built: true,
            ..Default::default()
        });
        assert_eq!(step, Step::STAY, "the drop is ordered once");
        let step = machine.step(Facts {
            wish: Wish::Nothing,
            ended: Some(Ended::Released),
            ..Default::default()
        });
        assert_eq!(step.edge, Some((Idle, R::LoadCancelled)));
    }

    #[test]
    fn wanting_the_cancelled_model_again_waits_for_its_memory() {
        let mut machine = machine(Loading, Some(R::LoadCancelled));
        let wish = Wish::Current;
        assert_eq!(
            machine.step(Facts {
                wish,
                built: true,
                ..Default::default()
            }),
            Step::STAY
        );
        let gone = Facts {
            wish,
            ended: Some(Ended::Released),
            ..Default::default()
        };
        assert_eq!(machine.step(gone).edge, Some((Idle, R::LoadCancelled)));
        let step = machine.step(Facts {
            wish,
            ..Default::default()
        });
        assert_eq!(step.edge, Some((Loading, R::LoadRequested)));
        assert_eq!(step.action, Some(ModelAction::Start));
    }

    #[test]
    fn a_failed_model_is_tried_again_only_when_due() {
        let wish = Wish::Current;
        let mut machine = machine(Failed, None);
        assert_eq!(
            machine.step(Facts {
                wish,
                ..Default::default()
            }),
            Step::STAY
        );
        let step = machine.step(Facts {
            wish,
            retry_due: true,
            ..Default::default()
        });
        assert_eq!(step.edge, Some((Loading, R::LoadRequested)));
    }

    #[test]
    fn a_model_that_makes_room_or_expires_is_still_wanted_and_only_a_job_brings_it_back() {
        for (leave, reason) in [(Leave::Evicted, R::Evicted), (Leave::Expired, R::Expired)] {
            let mut machine = machine(Loaded, None);
            let wish = Wish::Current;
            let leave = Some(leave);
            let step = machine.step(Facts {
                wish,
                leave,
                ..Default::default()
            });
            assert_eq!(step.edge, Some((Unloading, reason)));
            assert_eq!(step.action, Some(ModelAction::Drop));
            let asleep = Facts {
                wish,
                asleep: true,
                ..Default::default()
            };
            let ended = Some(Ended::Released);
            let step = machine.step(Facts { ended, ..asleep });
            assert_eq!(step.edge, Some((Idle, R::UnloadCompleted)));
            assert_eq!(machine.step(asleep), Step::STAY);
            let job_waits = true;
            let step = machine.step(Facts {
                job_waits,
                ..asleep
            });
            assert_eq!(step.edge, Some((Loading, R::JobRequested)));
        }
    }

    #[test]
    fn a_request_of_the_game_names_the_reason_before_an_eviction_does() {
        for (wish, reason) in [
            (Wish::Nothing, R::UnloadRequested),
            (Wish::Other, R::Superseded),
            (Wish::Anew, R::Reload),
        ] {
            let leave = Some(Leave::Evicted);
            let step = machine(Loaded, None).step(Facts {
                wish,
                leave,
                ..Default::default()
            });
            assert_eq!(step.edge, Some((Unloading, reason)));
        }
    }

    #[test]
    fn shutting_down_takes_the_edges_that_are_left() {
        let edges = |state, released| machine(state, None).shut_down(released);
        assert_eq!(
            edges(Loaded, true),
            [(Unloading, R::Shutdown), (Idle, R::Shutdown)]
        );
        assert_eq!(edges(Loaded, false), [(Unloading, R::Shutdown)]);
        assert_eq!(edges(Loading, true), [(Idle, R::Shutdown)]);
        assert_eq!(edges(Loading, false), []);
        assert_eq!(edges(Unloading, true), [(Idle, R::Shutdown)]);
        assert_eq!(edges(Idle, true), []);
        assert_eq!(edges(Failed, true), []);
    }
}
