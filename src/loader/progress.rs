//! How far a load is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bevy::prelude::*;

/// The phases of a load, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum LoadPhase {
    /// Configuration and weight headers are read.
    #[default]
    Planning,
    /// The load waits for its part of the memory budget, while others make room.
    Waiting,
    /// Weights are read and converted.
    Reading,
    /// The pipeline is put together on the device thread.
    Building,
    /// The pipeline does its first work, so that the first job is not slow.
    WarmingUp,
    /// The model is loaded.
    Done,
}

impl LoadPhase {
    const ALL: [Self; 6] = [
        Self::Planning,
        Self::Waiting,
        Self::Reading,
        Self::Building,
        Self::WarmingUp,
        Self::Done,
    ];
}

/// How far a load is, in exact bytes of the weights that it reads from its files. Never goes back; `done` ends at `total` once.
///
/// ```
/// use bevy_candle::Progress;
///
/// let nothing = Progress::default();
/// assert_eq!(nothing.fraction(), 0.0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug, Default)]
pub struct Progress {
    /// What the load is doing.
    pub phase: LoadPhase,
    /// Bytes read.
    pub done: u64,
    /// Bytes to read; 0 while planning.
    pub total: u64,
}

impl Progress {
    /// Returns the part that is done, 0 to 1.
    pub fn fraction(&self) -> f32 {
        if self.total == 0 {
            0.0
        } else {
            (self.done as f64 / self.total as f64) as f32
        }
    }
}

/// The progress as the workers count it.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl ProgressCell {
    pub(crate) fn enter(&self, phase: LoadPhase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Progress {
        Progress {
            phase: LoadPhase::ALL[usize::from(self.phase.load(Ordering::Relaxed))],
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_order_and_never_go_back() {
        let cell = ProgressCell::default();
        for phase in LoadPhase::ALL {
            cell.enter(phase);
            assert_eq!(cell.get().phase, phase);
        }
        cell.enter(LoadPhase::Reading);
        assert_eq!(cell.get().phase, LoadPhase::Done);
    }

    #[test]
    fn bytes_add_up_to_the_total() {
        let cell = ProgressCell::default();
        cell.expect(10);
        cell.add(4);
        assert_eq!(cell.get().fraction(), 0.4);
        cell.add(6);
        assert_eq!(cell.get().fraction(), 1.0);
    }
}
