//! [`Ledger`]: the budget of one device, and the bytes claimed of it. Any thread may claim.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::signal::Signal;

/// Why bytes were not granted: what `OverBudget` says, for loads and for jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shortage {
    pub(crate) needed: u64,
    pub(crate) budget: u64,
    pub(crate) in_use: u64,
}

/// The books of one device, for one app.
#[derive(Debug)]
pub(crate) struct Ledger {
    budget: AtomicU64,
    in_use: AtomicU64,
    /// The most that was ever in use.
    peak: AtomicU64,
    /// Bytes of `in_use` that running jobs hold.
    working: AtomicU64,
    /// Requests that wait for the arbiter. Nobody overtakes them.
    waiting: AtomicU32,
    /// Why the device cannot be used.
    unusable: OnceLock<String>,
    signal: Signal,
}

impl Ledger {
    /// The budget is unknown until the device is open.
    const UNKNOWN: u64 = u64::MAX;

    pub(crate) fn new(signal: Signal) -> Self {
        Self {
            budget: AtomicU64::new(Self::UNKNOWN),
            in_use: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            working: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            unusable: OnceLock::new(),
            signal,
        }
    }

    pub(crate) fn budget(&self) -> Option<u64> {
        let budget = self.budget.load(Ordering::Acquire);
        (budget != Self::UNKNOWN).then_some(budget)
    }

    pub(crate) fn set_budget(&self, bytes: u64) {
        self.budget
            .store(bytes.min(Self::UNKNOWN - 1), Ordering::Release);
        self.signal.raise();
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Acquire)
    }

    /// Sets the budget that was measured, unless somebody has said one.
    pub(crate) fn learn_budget(&self, bytes: u64) {
        let known = bytes.min(Self::UNKNOWN - 1);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self
            .budget
            .compare_exchange(Self::UNKNOWN, known, order.0, order.1);
        self.signal.raise();
    }

    /// Shows the device as one that cannot be used.
    pub(crate) fn give_up(&self, reason: &str) {
        if self.unusable.set(reason.to_owned()).is_ok() {
            self.signal.raise();
        }
    }

    pub(crate) fn unusable(&self) -> Option<&str> {
        self.unusable.get().map(String::as_str)
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Acquire)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Acquire)
    }

    pub(crate) fn working(&self) -> u64 {
        self.working.load(Ordering::Acquire)
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Claims bytes where they fit, at once, unless others wait: then only the arbiter claims.
    pub(crate) fn claim_unless_others_wait(self: &Arc<Self>, bytes: u64) -> Option<Claim> {
        if bytes > 0 && self.waiting.load(Ordering::Acquire) > 0 {
            return None;
        }
        self.claim(bytes)
    }

    /// Claims bytes where they fit.
    pub(crate) fn claim(self: &Arc<Self>, bytes: u64) -> Option<Claim> {
        let budget = self.budget()?;
        let fits = |in_use: u64| in_use.checked_add(bytes).filter(|sum| *sum <= budget);
        let claimed = if bytes == 0 {
            Ok(0)
        } else {
            self.in_use
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
        };
        let before = claimed.ok()?;
        self.peak.fetch_max(before + bytes, Ordering::AcqRel);
        Some(Claim {
            ledger: self.clone(),
            bytes,
            working: false,
        })
    }

    pub(super) fn count_waiting(self: &Arc<Self>) -> Counted {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Counted(self.clone())
    }
}

/// One request in the line.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Ledger>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bytes of a budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: Arc<Ledger>,
    bytes: u64,
    working: bool,
}

impl Claim {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts the bytes as a job's.
    pub(super) fn for_work(mut self) -> Self {
        self.working = true;
        self.ledger.working.fetch_add(self.bytes, Ordering::AcqRel);
        self
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.working {
            self.ledger.working.fetch_sub(self.bytes, Ordering::AcqRel);
        }
        if self.bytes > 0 {
            self.ledger.in_use.fetch_sub(self.bytes, Ordering::AcqRel);
            self.ledger.signal.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(budget: u64) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::new(Signal::default()));
        ledger.set_budget(budget);
        ledger
    }

    #[test]
    fn claims_stop_at_the_budget_and_come_back_on_drop() {
        let ledger = ledger(100);
        let first = ledger.claim(60).expect("it fits");
        assert!(ledger.claim(41).is_none());
        let second = ledger.claim(40).expect("exactly full").for_work();
        assert_eq!((ledger.in_use(), ledger.working()), (100, 40));
        assert!(ledger.claim(u64::MAX).is_none(), "no overflow");
        drop((first, second));
        assert_eq!((ledger.in_use(), ledger.working()), (0, 0));
        assert_eq!(ledger.peak(), 100);
    }

    #[test]
    fn nothing_is_granted_before_the_budget_is_known() {
        let ledger = Arc::new(Ledger::new(Signal::default()));
        assert!(ledger.claim(1).is_none());
        ledger.learn_budget(10);
        assert!(ledger.claim(10).is_some());
        ledger.learn_budget(20);
        assert_eq!(ledger.budget(), Some(10), "what is known stays");
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let ledger = ledger(100);
        let counted = ledger.count_waiting();
        assert!(ledger.claim_unless_others_wait(1).is_none());
        assert!(
            ledger.claim_unless_others_wait(0).is_some(),
            "nothing takes nothing from anybody"
        );
        drop(counted);
        assert!(ledger.claim_unless_others_wait(1).is_some());
    }

    #[test]
    fn bytes_that_come_back_wake_the_arbiter() {
        let ledger = ledger(100);
        let claim = ledger.claim(1).expect("it fits");
        ledger.signal().take();
        drop(claim);
        assert!(ledger.signal().is_raised());
    }
}
