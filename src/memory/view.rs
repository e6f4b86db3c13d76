//! What a [`ResourceManager`](crate::ResourceManager) shows, as plain data.

use std::time::Duration;

use bevy::prelude::*;

use super::{Account, Ledger, SlotId, Standing};
use crate::{DeviceChoice, ModelId};

/// The memory of one device, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// The device.
    pub device: DeviceChoice,
    /// What all models and jobs together may claim; [`None`] until the device is open, and no limit, which reads as
    /// `u64::MAX - 1`, where neither the game nor the platform says how much there is.
    pub budget: Option<u64>,
    /// Everything that is claimed.
    pub in_use: u64,
    /// The most that was ever claimed at once.
    pub peak: u64,
    /// Of `in_use`: for loads that are not finished and for jobs that run.
    pub reserved: u64,
    /// Of `in_use`: by models that are kept in case they come back, and go first.
    pub parked: u64,
    /// Loads and jobs that wait for room.
    pub waiting: u32,
    /// Why the device cannot be used: it could not be opened, or its driver has given it up. It is not tried again.
    pub unusable: Option<String>,
}

/// The memory of one model.
#[derive(Clone, PartialEq, Eq, Debug, Reflect)]
#[reflect(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ModelMemory {
    /// The manager that it belongs to.
    pub slot: SlotId,
    /// The name of the manager's pipeline, without its path: [`ModelKind::name`](crate::ModelKind::name).
    pub kind: String,
    /// The model's id.
    pub model_id: ModelId,
    /// The device that it is on.
    pub device: DeviceChoice,
    /// Where its bytes stand.
    pub standing: Standing,
    /// Bytes claimed for its weights; 0 while the load plans or waits.
    pub bytes: u64,
    /// When its last job ended, or it was loaded; on the clock of [`Time<Real>`].
    pub last_used: Duration,
    /// Jobs that run. Each holds a lease: the model is not evicted meanwhile.
    pub leases: u32,
    /// Jobs that run or are before it.
    pub jobs: u32,
    /// Whether it may not be evicted.
    pub pinned: bool,
    /// The higher, the longer it stays.
    pub priority: i32,
}

impl ModelMemory {
    pub(super) fn of(account: &Account) -> Self {
        let holder = account.holder();
        Self {
            slot: holder.slot,
            kind: holder.kind.clone(),
            model_id: holder.model_id.clone(),
            device: holder.device,
            standing: account.standing(),
            bytes: account.bytes(),
            last_used: account.last_used(),
            leases: account.leases(),
            jobs: account.jobs(),
            pinned: account.is_pinned(),
            priority: account.priority(),
        }
    }
}

impl DeviceMemory {
    pub(super) fn of(device: DeviceChoice, ledger: &Ledger, models: &[ModelMemory]) -> Self {
        let bytes = |standing: Standing| -> u64 {
            let there = |model: &&ModelMemory| model.device == device && model.standing == standing;
            models.iter().filter(there).map(|model| model.bytes).sum()
        };
        Self {
            device,
            budget: ledger.budget(),
            in_use: ledger.in_use(),
            peak: ledger.peak(),
            reserved: bytes(Standing::Loading) + ledger.working(),
            parked: bytes(Standing::Parked),
            waiting: ledger.waiting(),
            unusable: ledger.unusable().map(str::to_owned),
        }
    }
}
