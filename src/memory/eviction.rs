//! [`EvictionPolicy`]: who makes room. Pure.

use std::{cmp::Reverse, fmt::Debug, time::Duration};

use bevy::prelude::*;

use crate::ModelId;

/// Names a manager's place in the [`ResourceManager`](crate::ResourceManager): a number, not a type, so
/// that kinds that are known only at run time can have one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Reflect)]
pub struct SlotId(u32);

impl SlotId {
    /// Names the slot of a number; [`ModelManager::slot`](crate::ModelManager::slot) says a manager's own.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// A loaded model, as an [`EvictionPolicy`] sees it.
#[derive(Clone, PartialEq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ResidentModel {
    /// The manager that it belongs to.
    pub slot: SlotId,
    /// Its id.
    pub model_id: ModelId,
    /// Bytes that it would give back.
    pub bytes: u64,
    /// When its last job ended, or it was loaded; on the clock of [`Time<Real>`].
    pub last_used: Duration,
    /// How long it took to load.
    pub reload_cost: Duration,
    /// The higher, the longer it stays.
    pub priority: i32,
    /// Jobs that it works on or has before it. Where a busy model is chosen, it gets no new ones, and goes
    /// when these are done.
    pub jobs: u32,
}

impl ResidentModel {
    /// Makes an idle model that was never used, for tests of a policy.
    pub fn new(slot: SlotId, model_id: impl Into<ModelId>, bytes: u64) -> Self {
        Self {
            slot,
            model_id: model_id.into(),
            bytes,
            last_used: Duration::ZERO,
            reload_cost: Duration::ZERO,
            priority: 0,
            jobs: 0,
        }
    }
}

/// Chooses which model makes room for another, one at a time, until there is enough.
///
/// It is asked in the frame in which the room is needed, on the main thread. Pinned models are not among the
/// candidates, and busy ones only where the idle ones are not enough. Parked models have gone already.
///
/// ```
/// use bevy_candle::{EvictionPolicy, ResidentModel, SlotId};
///
/// /// Lets the largest model go first.
/// #[derive(Debug)]
/// struct LargestFirst;
///
/// impl EvictionPolicy for LargestFirst {
///     fn next_victim(&self, _shortage: u64, candidates: &[ResidentModel]) -> Option<usize> {
///         (0..candidates.len()).max_by_key(|&i| candidates[i].bytes)
///     }
/// }
///
/// let models = [
///     ResidentModel::new(SlotId::new(0), "sprites", 7_000_000),
///     ResidentModel::new(SlotId::new(1), "dialogue", 800_000_000),
/// ];
/// assert_eq!(LargestFirst.next_victim(1_000_000, &models), Some(1));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not choose which model makes room",
    label = "not an `EvictionPolicy`",
    note = "use `LeastRecentlyUsed`, or implement `EvictionPolicy` for `{Self}`"
)]
pub trait EvictionPolicy: Debug + Send + Sync + 'static {
    /// Returns the index of the candidate that goes next, or [`None`] where all should stay: then who
    /// needs the room gets `OverBudget`. An index that is out of range counts as [`None`]. `shortage` is in bytes; there
    /// is at least one candidate.
    fn next_victim(&self, shortage: u64, candidates: &[ResidentModel]) -> Option<usize>;
}

/// The default [`EvictionPolicy`]: of the models of the lowest priority, the one that was not used for the
/// longest time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug, Default)]
pub struct LeastRecentlyUsed;

impl EvictionPolicy for LeastRecentlyUsed {
    fn next_victim(&self, _shortage: u64, candidates: &[ResidentModel]) -> Option<usize> {
        let rank = |i: &usize| {
            let model = &candidates[*i];
            (
                model.priority,
                model.last_used,
                Reverse(model.bytes),
                model.slot,
            )
        };
        (0..candidates.len()).min_by_key(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(slot: u32, priority: i32, last_used: u64, bytes: u64) -> ResidentModel {
        ResidentModel {
            last_used: Duration::from_secs(last_used),
            priority,
            ..ResidentModel::new(SlotId::new(slot), "a model", bytes)
        }
    }

    #[test]
    fn the_least_recently_used_of_the_lowest_priority_goes_first() {
        let models = [
            model(0, 0, 5, 10),
            model(1, 0, 3, 10),
            model(2, 1, 1, 10),
            model(3, 0, 3, 20),
        ];
        let next = |models: &[ResidentModel]| LeastRecentlyUsed.next_victim(1, models);
        assert_eq!(next(&models), Some(3), "of two as old, the larger");
        assert_eq!(next(&models[..3]), Some(1));
        assert_eq!(next(&[models[0].clone(), models[2].clone()]), Some(0));
        assert_eq!(next(&models[2..3]), Some(0));
    }
}
