//! What has to hold of the two managers: at rest, at the end, and in each frame.

use bevy::prelude::*;
use bevy_candle::{
    ModelMemory, Standing,
    prelude::*,
    test_kit::{Fake, Recorder},
};

use super::{Game, MODEL};
use crate::support::reference::Which;

impl Game {
    #[track_caller]
    pub(super) fn check_status(&self, kind: usize) {
        let status = self.status(kind);
        let current = self.current(kind).map(|model| model.which);
        match status.current_state {
            ModelState::Loaded => {
                assert!(current.is_some_and(Which::loads), "{current:?}");
                assert_eq!(status.memory, MODEL);
                assert_eq!(status.progress.done, status.progress.total);
            }
            ModelState::Failed => {
                let error = status.last_error.as_deref();
                let as_scripted = match self.references[kind].last {
                    Some(Which::Fails) => matches!(error, Some(LoadError::Build { .. })),
                    Some(Which::Panics) => matches!(error, Some(LoadError::Panicked { .. })),
                    _ => false,
                };
                assert!(as_scripted, "{error:?}");
            }
            ModelState::Idle => assert_eq!((current, status.memory), (None, 0)),
            ModelState::Loading | ModelState::Unloading => {}
        }
    }

    pub(super) fn check_story(&self) {
        let world = self.app.world();
        world.resource::<Recorder<Fake>>().assert_consistent();
        world.resource::<Recorder<Fake<1>>>().assert_consistent();
    }

    #[track_caller]
    pub(super) fn assert_empty(&self) {
        assert_eq!((self.memory().in_use(), self.alive()), (0, 0), "{self:?}");
    }
}

/// There while a test lowers the budget below what is in use.
#[derive(Resource)]
pub(super) struct MayExceedBudget;

/// What holds in each frame: the budget, and at most one load and one loaded model a manager.
pub(super) fn in_every_frame(
    memory: Res<ResourceManager>,
    may_exceed: Option<Res<MayExceedBudget>>,
) {
    for device in memory.devices() {
        let within = device.budget.is_none_or(|budget| device.in_use <= budget);
        let ever = device.budget.is_none_or(|budget| device.peak <= budget);
        assert!((within && ever) || may_exceed.is_some(), "{device:?}");
    }
    let models = memory.models();
    for (i, model) in models.iter().enumerate() {
        let same =
            |other: &ModelMemory| (other.slot, other.standing) == (model.slot, model.standing);
        let single = matches!(model.standing, Standing::Loading | Standing::Loaded);
        assert!(!single || !models[..i].iter().any(same), "{models:?}");
    }
}
