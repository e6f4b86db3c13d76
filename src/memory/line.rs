//! The line before the arbiter: who waits for memory, and how they hear of it.

use std::sync::Arc;

use async_channel::Receiver;

use super::{
    account::{Account, Grant},
    ledger::{Claim, Shortage, Waits},
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
    pub(super) is_job: bool,
    /// Who has left waits no more.
    pub(super) watch: Watch,
    accept: Box<dyn FnOnce(Answer) + Send + Sync>,
    _waits: Waits,
}

impl Waiter {
    pub(super) fn answer(self, answer: Answer) {
        (self.accept)(answer);
    }
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
            None => self.wait(needed, false, watch, accept),
        }
    }

    /// Claims a job's working memory, with its lease on the model. `first`: the first job since the model
    /// was loaded goes before the line where it fits, so that no model is loaded in vain.
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
        self.wait(needed, true, watch.clone(), move |answer| {
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
        is_job: bool,
        watch: Watch,
        accept: impl FnOnce(Answer) + Send + Sync + 'static,
    ) {
        let waiter = Waiter {
            needed,
            account: self.clone(),
            is_job,
            watch,
            accept: Box::new(accept),
            _waits: self.ledger().count_waiting(),
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
