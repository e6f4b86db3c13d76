//! A model whose load and jobs stand at gates.

use bevy_candle::test_kit::{FakeModel, Gate, Place};

use super::MODEL;
use crate::support::reference::Which;

/// A model of one manager, with gates in its build and in its steps.
pub(super) struct Gated {
    pub(super) which: Which,
    pub(super) model: FakeModel,
    pub(super) building: Gate,
    pub(super) steps: Gate,
}

impl Gated {
    pub(super) fn new(which: Which) -> Self {
        let (building, steps) = (Gate::closed(), Gate::closed());
        let model = FakeModel::new(which.id())
            .tensors(1, MODEL as usize / size_of::<f32>())
            .gate(Place::Build, &building)
            .gate_steps(&steps);
        let model = match which {
            Which::Fails => model.fail_in(Place::Build),
            Which::Panics => model.panic_in(Place::Build),
            Which::Good | Which::Other => model,
        };
        Self {
            which,
            model,
            building,
            steps,
        }
    }

    /// How many pipelines of it there are, half built ones included.
    pub(super) fn alive(&self) -> u64 {
        let log = self.model.log();
        let count = |place| log.iter().filter(|event| event.place == place).count();
        (count(Place::Build) - count(Place::Drop)) as u64
    }
}
