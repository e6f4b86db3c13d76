//! The line before the arbiter: who waits for memory, and how they hear of it.

use std::sync::Arc;

use async_channel::Receiver;

use super::{
    account::{Account, Grant},
    ledger::{Claim, Counted, Shortage},
};
use crate::lifeline::Watch;

/// What somebody in the line hears, once.
pub(crate) enum Answer {
    Granted(Claim),
    OverBudget(Shortage),
    /// A job's model makes room for somebody before it.
    Return,
}

/// Somebody in the line.
pub(super) struct Waiter {
    pub(super) needed: u64,
    pub(super) account: Arc<Account>,
    pub(super) kind: Waits,
    /// Who has left waits no more.
    pub(super) watch: Watch,
    accept: Box<dyn FnOnce(Answer) + Send + Sync>,
    _counted: Counted,
}

impl Waiter {
    pub(super) fn answer(self, answer: Answer) {
        (self.accept)(answer);
    }
}

/// What somebody in the line waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Waits {
    /// The first job since its model was loaded. It comes before anybody else, so that no model is loaded in
    /// vain.
    FirstJob,
    Job,
    Load,
}

/// What becomes of a job that wants to start.
pub(crate) enum JobGrant {
    Granted(Grant),
    OverBudget(Shortage),
    /// The job has to wait for its model to come back.
    Return,
}

impl Account {
    /// Claims the weights of a load, at once or when its turn comes; `accept` hears of it. It may be called on
    /// any thread, also on the main one, and must not do much.
    pub(crate) fn claim(
        self: &Arc<Self>,
        needed: u64,
        watch: Watch,
        accept: impl FnOnce(Answer) + Send + Sync + 'static,
    ) {
        match self.ledger().claim_unless_others_wait(needed) {
            Some(claim) => accept(Answer::Granted(claim)),
            None => self.wait(needed, Waits::Load, watch, accept),
        }
    }

    /// Claims a job's working memory, with its lease on the model. `first`: the first job since the model
    /// was loaded comes before the line.
    pub(crate) async fn claim_for_job(
        self: &Arc<Self>,
        needed: u64,
        watch: &Watch,
        first: bool,
    ) -> JobGrant {
        let ledger = self.ledger();
        let claim = if first {
            ledger.claim(needed)
        } else {
            ledger.claim_unless_others_wait(needed)
        };
        if let Some(claim) = claim {
            return JobGrant::Granted(self.lease(claim));
        }
        let (tell, told) = async_channel::bounded(1);
        let kind = if first { Waits::FirstJob } else { Waits::Job };
        self.wait(needed, kind, watch.clone(), move |answer| {
            let _ = tell.try_send(answer);
        });
        let turn = Turn {
            told,
            account: self,
        };
        match turn.told.recv().await {
            Ok(Answer::Granted(claim)) => JobGrant::Granted(self.lease(claim)),
            Ok(Answer::OverBudget(shortage)) => JobGrant::OverBudget(shortage),
            Ok(Answer::Return) | Err(_) => JobGrant::Return,
        }
    }

    fn wait(
        self: &Arc<Self>,
        needed: u64,
        kind: Waits,
        watch: Watch,
        accept: impl FnOnce(Answer) + Send + Sync + 'static,
    ) {
        let waiter = Waiter {
            needed,
            account: self.clone(),
            kind,
            watch,
            accept: Box::new(accept),
            _counted: self.ledger().count_waiting(),
        };
        let _ = self.line().send(waiter);
        self.ledger().signal().raise();
    }
}

/// A place in the line. Whoever leaves it has the arbiter look again: others may wait for nothing now.
struct Turn<'a> {
    told: Receiver<Answer>,
    account: &'a Account,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.account.ledger().signal().raise();
    }
}
