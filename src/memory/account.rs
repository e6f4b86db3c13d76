//! [`Account`]: the books of one load, from its plan to its last byte.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bevy::prelude::*;
use crossbeam_channel::Sender;

use super::{
    arbiter::Tenant,
    eviction::{ResidentModel, SlotId},
    ledger::{Claim, Ledger},
    line::Waiter,
};
use crate::{DeviceChoice, ModelId};

/// Where the bytes of a model stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Reflect)]
#[non_exhaustive]
pub enum Standing {
    /// Reserved for a load that is not finished.
    Loading,
    /// In use by a loaded model.
    Loaded,
    /// Kept of a model that may come back; the first to go where room is needed.
    Parked,
    /// On their way back.
    Leaving,
}

impl Standing {
    const ALL: [Self; 4] = [Self::Loading, Self::Loaded, Self::Parked, Self::Leaving];
}

/// What a load is, for the books.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) slot: SlotId,
    /// What its kind is called.
    pub(crate) kind: String,
    pub(crate) model_id: ModelId,
    pub(crate) device: DeviceChoice,
}

/// Written by the manager and the workers, read by the arbiter. Only the main thread hands over jobs, and only
/// it evicts, so a model without jobs stays without them while it decides.
#[derive(Debug)]
pub(crate) struct Account {
    holder: Holder,
    ledger: Arc<Ledger>,
    line: Sender<Waiter>,
    standing: AtomicU8,
    bytes: AtomicU64,
    jobs: AtomicU32,
    leases: AtomicU32,
    pinned: AtomicBool,
    priority: AtomicI32,
    last_used: AtomicU64,
    reload_cost: AtomicU64,
    draining: AtomicBool,
    evicted: AtomicBool,
    closed: AtomicBool,
    fresh: AtomicBool,
    wanted: AtomicBool,
}

impl Account {
    pub(super) fn new(holder: Holder, ledger: Arc<Ledger>, line: Sender<Waiter>) -> Self {
        Self {
            holder,
            ledger,
            line,
            standing: AtomicU8::new(Standing::Loading as u8),
            bytes: AtomicU64::new(0),
            jobs: AtomicU32::new(0),
            leases: AtomicU32::new(0),
            pinned: AtomicBool::new(false),
            priority: AtomicI32::new(0),
            last_used: AtomicU64::new(0),
            reload_cost: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            fresh: AtomicBool::new(true),
            wanted: AtomicBool::new(true),
        }
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Bytes that others hold on the device, where its budget is known and is enough.
    pub(crate) fn in_use_where_fits(&self, needed: u64) -> Option<u64> {
        let budget = self.ledger.budget()?;
        (needed <= budget).then(|| self.ledger.in_use())
    }

    pub(super) fn line(&self) -> &Sender<Waiter> {
        &self.line
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing::ALL[usize::from(self.standing.load(Ordering::Acquire))]
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Bytes claimed for the weights, until they are back.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
    }

    /// Jobs that the model works on or has before it.
    pub(crate) fn jobs(&self) -> u32 {
        self.jobs.load(Ordering::Acquire)
    }

    /// Jobs that run.
    pub(crate) fn leases(&self) -> u32 {
        self.leases.load(Ordering::Acquire)
    }

    pub(crate) fn set_residency(&self, pinned: bool, priority: i32) {
        self.pinned.store(pinned, Ordering::Relaxed);
        self.priority.store(priority, Ordering::Relaxed);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    pub(crate) fn priority(&self) -> i32 {
        self.priority.load(Ordering::Relaxed)
    }

    pub(crate) fn last_used(&self) -> Duration {
        Duration::from_nanos(self.last_used.load(Ordering::Relaxed))
    }

    pub(crate) fn set_last_used(&self, time: Duration) {
        self.last_used.store(nanos(time), Ordering::Relaxed);
    }

    pub(crate) fn set_reload_cost(&self, cost: Duration) {
        self.reload_cost.store(nanos(cost), Ordering::Relaxed);
    }

    /// Whether the model gets no new jobs, because it makes room when the present ones are done.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
    }

    /// Whether the model has to go, to make room. The manager lets it go in the same frame.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
    }

    /// Whether no job has run since the model became loaded.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Acquire)
    }

    pub(crate) fn set_fresh(&self, fresh: bool) {
        self.fresh.store(fresh, Ordering::Release);
    }

    /// Whether the game still wants the model. One that it does not is let go, or parked, in the same frame, after the
    /// arbiter.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The last byte is back.
    pub(crate) fn close(&self) {
        self.set_bytes(0);
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Counts a job as long as it lives.
    pub(crate) fn hand_over(self: &Arc<Self>) -> InHand {
        self.jobs.fetch_add(1, Ordering::AcqRel);
        InHand(self.clone())
    }

    /// Makes the claim of a job a grant, which counts as a lease as long as it lives.
    pub(super) fn lease(self: &Arc<Self>, claim: Claim) -> Grant {
        self.leases.fetch_add(1, Ordering::AcqRel);
        let grant = Grant {
            claim: claim.for_work(),
            _lease: Lease(self.clone()),
        };
        // What games see has changed.
        self.ledger.signal().raise();
        grant
    }

    /// The account as the arbiter sees it. What the game has just let go of is on its way; where it is parked instead, it
    /// goes with the next look.
    pub(super) fn tenant(&self) -> Tenant {
        let standing = match self.standing() {
            Standing::Loading | Standing::Loaded if !self.is_wanted() => Standing::Leaving,
            _ if self.is_evicted() => Standing::Leaving,
            standing => standing,
        };
        Tenant {
            standing,
            pinned: self.is_pinned(),
            model: ResidentModel {
                slot: self.holder.slot,
                model_id: self.holder.model_id.clone(),
                bytes: self.bytes(),
                last_used: self.last_used(),
                reload_cost: Duration::from_nanos(self.reload_cost.load(Ordering::Relaxed)),
                priority: self.priority(),
                jobs: self.jobs(),
            },
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A job that was handed to its model: it is not evicted meanwhile.
#[derive(Debug)]
pub(crate) struct InHand(Arc<Account>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::AcqRel);
        self.0.ledger.signal().raise();
    }
}

/// What a job holds from its grant to its end: its working memory, and its lease on the model.
#[derive(Debug)]
pub(crate) struct Grant {
    claim: Claim,
    _lease: Lease,
}

impl Grant {
    pub(crate) fn bytes(&self) -> u64 {
        self.claim.bytes()
    }
}

#[derive(Debug)]
struct Lease(Arc<Account>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, Ordering::AcqRel);
    }
}
