//! The manager's state as a Bevy state.
//!
//! Bevy's `init_state` would add thirteen systems to every frame. Here the same systems sit in a
//! schedule of their own, [`ModelStateTransition`], one for each kind, that runs only in the frames
//! in which a state changes. It does not need Bevy's `StatesPlugin`.

use std::any::TypeId;

use bevy::{
    ecs::schedule::{ScheduleLabel, SingleThreadedExecutor},
    prelude::*,
    state::{
        state::{FreelyMutableState, StateTransitionEvent, StateTransitionSystems},
        state_scoped::*,
    },
};

use super::{ModelState, StateOf};
use crate::{ModelManager, Pipeline};
use hidden::Actual;

/// The transitions of one kind of model.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
struct ModelStateTransition(TypeId);

impl ModelStateTransition {
    fn of<P: Pipeline>() -> Self {
        Self(TypeId::of::<P>())
    }
}

/// What [`StateOf`] is computed from. Other crates cannot name it, so a game cannot set it.
mod hidden {
    use std::{
        fmt,
        hash::{Hash, Hasher},
        marker::PhantomData,
    };

    use bevy::{prelude::*, state::state::FreelyMutableState};

    use crate::{ModelState, Pipeline};

    pub struct Actual<P: Pipeline> {
        pub(crate) state: ModelState,
        kind: PhantomData<fn() -> P>,
    }

    impl<P: Pipeline> Actual<P> {
        pub(crate) fn new(state: ModelState) -> Self {
            Self {
                state,
                kind: PhantomData,
            }
        }
    }

    impl<P: Pipeline> Clone for Actual<P> {
        fn clone(&self) -> Self {
            Self::new(self.state)
        }
    }

    impl<P: Pipeline> Default for Actual<P> {
        fn default() -> Self {
            Self::new(ModelState::default())
        }
    }

    impl<P: Pipeline> PartialEq for Actual<P> {
        fn eq(&self, other: &Self) -> bool {
            self.state == other.state
        }
    }

    impl<P: Pipeline> Eq for Actual<P> {}

    impl<P: Pipeline> Hash for Actual<P> {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            self.state.hash(hasher);
        }
    }

    impl<P: Pipeline> fmt::Debug for Actual<P> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.state.fmt(f)
        }
    }

    impl<P: Pipeline> States for Actual<P> {}

    impl<P: Pipeline> FreelyMutableState for Actual<P> {}
}

impl<P: Pipeline> ComputedStates for StateOf<P> {
    type SourceStates = Actual<P>;

    const ALLOW_SAME_STATE_TRANSITIONS: bool = false;

    fn compute(actual: Actual<P>) -> Option<Self> {
        Some(actual.state.of())
    }
}

/// Adds the state of the models of kind `P`: what `init_state` does, in a schedule that runs on demand.
pub(crate) fn add_model_state<P: Pipeline>(app: &mut App) {
    app.init_resource::<State<Actual<P>>>()
        .init_resource::<NextState<Actual<P>>>()
        .init_resource::<State<StateOf<P>>>()
        .add_message::<StateTransitionEvent<Actual<P>>>()
        .add_message::<StateTransitionEvent<StateOf<P>>>();
    // For `OnEnter(Idle)`, and for a game's sub-states, which follow this message.
    app.world_mut()
        .write_message(StateTransitionEvent::<StateOf<P>> {
            exited: None,
            entered: Some(StateOf::default()),
            allow_same_state_transitions: true,
        });
    let mut schedule = Schedule::new(ModelStateTransition::of::<P>());
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.configure_sets(
        (
            StateTransitionSystems::DependentTransitions,
            StateTransitionSystems::ExitSchedules,
            StateTransitionSystems::TransitionSchedules,
            StateTransitionSystems::EnterSchedules,
        )
            .chain(),
    );
    Actual::<P>::register_state(&mut schedule);
    StateOf::<P>::register_computed_state_systems(&mut schedule);
    add_state_scoped_entities::<StateOf<P>>(&mut schedule);
    app.add_schedule(schedule);
}

/// What Bevy's private `enable_state_scoped_entities` adds (`bevy_state` 0.19.1).
fn add_state_scoped_entities<S: States>(schedule: &mut Schedule) {
    let on_exit = (
        despawn_entities_on_exit_state::<S>,
        disable_entities_on_exit_state::<S>,
        enable_entities_on_exit_state::<S>,
    );
    let on_enter = (
        despawn_entities_on_enter_state::<S>,
        disable_entities_on_enter_state::<S>,
        enable_entities_on_enter_state::<S>,
    );
    let when = (
        despawn_entities_when_state::<S>,
        disable_entities_when_state::<S>,
        enable_entities_when_state::<S>,
    );
    schedule.add_systems((
        on_exit.in_set(StateTransitionSystems::ExitSchedules),
        on_enter.in_set(StateTransitionSystems::EnterSchedules),
        when.in_set(StateTransitionSystems::TransitionSchedules),
    ));
}

/// Runs `OnEnter(Idle)` before anything else in the app's first frame.
pub(crate) fn enter_first_states<P: Pipeline>(world: &mut World) {
    world.run_schedule(ModelStateTransition::of::<P>());
}

/// Brings the Bevy state up to the manager's, where the two differ: `OnExit` and `OnEnter` run.
pub(crate) fn mirror<P: Pipeline>(world: &mut World) {
    let Some(manager) = world.get_resource::<ModelManager<P>>() else {
        return;
    };
    let actual = manager.actual_state();
    // At the end of the app no frame follows: edges are only written then.
    if shown::<P>(world) != actual && !manager.is_closed() {
        world
            .resource_mut::<NextState<Actual<P>>>()
            .set(Actual::new(actual));
        world.run_schedule(ModelStateTransition::of::<P>());
    }
}

fn shown<P: Pipeline>(world: &World) -> ModelState {
    world.resource::<State<StateOf<P>>>().state
}
