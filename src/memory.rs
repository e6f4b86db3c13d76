//! [`ResourceManager`]: who claims how much on which device, who makes room, and what came back.

use std::sync::Arc;

use bevy::prelude::*;
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{DeviceChoice, signal::Signal};

mod account;
mod arbiter;
mod arbitrate;
mod budget;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod eviction;
mod ledger;
mod line;
#[cfg(feature = "metal")]
mod metal;
mod release;
mod room;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod stretch;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[path = "memory/no_stretch.rs"]
mod stretch;
mod view;

pub use account::Standing;
pub(crate) use account::{Account, Grant, Holder, InHand};
pub(crate) use arbitrate::{arbitrate, show_memory};
pub(crate) use budget::default_budget;
pub(crate) use cpu::{prefer_huge_pages, trim as trim_heap};
#[cfg(feature = "cuda")]
pub(crate) use cuda::cuda_devices;
pub use eviction::{EvictionPolicy, LeastRecentlyUsed, ResidentModel, SlotId};
pub(crate) use ledger::{Claim, Ledger, Shortage};
use line::Waiter;
pub(crate) use line::{Answer, JobGrant};
pub use release::{CardReport, ReleaseReport};
pub(crate) use release::{Snapshot, report};
pub(crate) use room::{ensure_available, is_worth_a_look};
#[cfg(feature = "cuda")]
pub(crate) use room::{ensure_free, free_bytes};
pub(crate) use stretch::{
    Footprint, MAPPED, SMALL, Stretch, clear_idle_heap, clear_this_heap, take_places,
};
pub use view::{DeviceMemory, ModelMemory};

/// The memory of the app's devices: the budgets, and who claims how much of them. Apps of one process have budgets of
/// their own.
///
/// A load claims the bytes of its weights before it reads one of them; a job claims its
/// [`working_memory`](crate::Pipeline::working_memory) before it starts. What does not fit waits for others to make room,
/// or ends with `OverBudget` where nobody can. So what models use never exceeds the budget, switches and jobs included.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// fn show(memory: Res<ResourceManager>) {
///     for device in memory.devices() {
///         info!("{}: {} of {:?} bytes, {} parked", device.device, device.in_use, device.budget, device.parked);
///     }
///     for model in memory.models() {
///         info!("{}: {} bytes, {:?}, {} jobs", model.model_id, model.bytes, model.standing, model.jobs);
///     }
/// }
/// # bevy::ecs::system::assert_is_system(show);
/// ```
///
/// What [`devices`](Self::devices) and [`models`](Self::models) say holds from `PreUpdate` on for the
/// frame; [`in_use`](Self::in_use) is the figure of the moment.
#[derive(Resource, Reflect)]
#[reflect(Resource)]
#[reflect(from_reflect = false)]
pub struct ResourceManager {
    devices: Vec<DeviceMemory>,
    models: Vec<ModelMemory>,
    #[reflect(ignore)]
    books: Books,
}

/// What the view is made from.
struct Books {
    default_device: DeviceChoice,
    /// What the game said; [`None`]: measured when a device is opened.
    default_budget: Option<u64>,
    devices: Vec<(DeviceChoice, Arc<Ledger>)>,
    slots: u32,
    accounts: Vec<Arc<Account>>,
    line: (Sender<Waiter>, Receiver<Waiter>),
    waiting: Vec<Waiter>,
    policy: Box<dyn EvictionPolicy>,
    signal: Signal,
}

impl FromWorld for ResourceManager {
    fn from_world(world: &mut World) -> Self {
        let signal = world.get_resource_or_init::<Signal>().clone();
        Self {
            devices: Vec::new(),
            models: Vec::new(),
            books: Books {
                default_device: DeviceChoice::Cpu,
                default_budget: None,
                devices: Vec::new(),
                slots: 0,
                accounts: Vec::new(),
                line: unbounded(),
                waiting: Vec::new(),
                policy: Box::new(LeastRecentlyUsed),
                signal,
            },
        }
    }
}

impl FromReflect for ResourceManager {
    /// Returns [`None`]: the books of an app cannot be made from data.
    fn from_reflect(_: &dyn PartialReflect) -> Option<Self> {
        None
    }
}

impl ResourceManager {
    /// Returns the devices that models were loaded on, or will be.
    pub fn devices(&self) -> &[DeviceMemory] {
        &self.devices
    }

    /// Returns the models that hold memory or are about to.
    pub fn models(&self) -> &[ModelMemory] {
        &self.models
    }

    /// Returns the budget of the app's own device, [`CandlePlugin::device`](crate::CandlePlugin::device), in bytes;
    /// [`None`] until it is known, which takes an open device where the game has not said one.
    ///
    /// Each other device has a budget of its own, which [`devices`](Self::devices) says.
    pub fn budget(&self) -> Option<u64> {
        let known = self.ledger_of(self.books.default_device.resolve());
        known.map_or(self.books.default_budget, |ledger| ledger.budget())
    }

    /// Returns the bytes that are claimed on all devices at this moment: by models that load, are loaded, parked or on their
    /// way back, and by running jobs.
    ///
    /// With models on more than one device, no [`budget`](Self::budget) is to be compared with this sum;
    /// [`devices`](Self::devices) has both for each device.
    pub fn in_use(&self) -> u64 {
        let devices = self.books.devices.iter();
        devices.map(|(_, ledger)| ledger.in_use()).sum()
    }

    /// Sets the budget of a device in bytes. Where more is in use, parked models go, then idle ones as the
    /// [`EvictionPolicy`] chooses, then busy ones when their jobs are done; pinned ones stay, and nothing new is granted
    /// until they fit.
    pub fn set_budget(&mut self, device: DeviceChoice, bytes: u64) {
        self.ledger(device.resolve()).set_budget(bytes);
    }

    /// Replaces [`LeastRecentlyUsed`] as the choice of who makes room.
    pub fn set_eviction_policy(&mut self, policy: impl EvictionPolicy) {
        self.books.policy = Box::new(policy);
        self.books.signal.raise();
    }

    /// Takes the settings of the app.
    pub(crate) fn configure(&mut self, device: DeviceChoice, budget: Option<u64>) {
        self.books.default_device = device;
        self.books.default_budget = budget;
        for (_, ledger) in &self.books.devices {
            if let Some(bytes) = budget {
                ledger.set_budget(bytes);
            }
        }
    }

    /// Names a place for one more manager.
    pub(crate) fn add_slot(&mut self) -> SlotId {
        self.books.slots += 1;
        SlotId::new(self.books.slots - 1)
    }

    fn ledger_of(&self, device: DeviceChoice) -> Option<&Arc<Ledger>> {
        let mut devices = self.books.devices.iter();
        devices.find_map(|(choice, ledger)| (*choice == device).then_some(ledger))
    }

    /// Returns the books of a device.
    pub(crate) fn ledger(&mut self, device: DeviceChoice) -> Arc<Ledger> {
        if let Some(ledger) = self.ledger_of(device) {
            return ledger.clone();
        }
        let ledger = Arc::new(Ledger::new(self.books.signal.clone()));
        if let Some(budget) = self.books.default_budget {
            ledger.set_budget(budget);
        }
        self.books.devices.push((device, ledger.clone()));
        ledger
    }

    /// Opens the books of a load.
    pub(crate) fn open_account(&mut self, holder: Holder) -> Arc<Account> {
        let ledger = self.ledger(holder.device);
        let account = Arc::new(Account::new(holder, ledger, self.books.line.0.clone()));
        self.books.accounts.push(account.clone());
        account
    }
}
