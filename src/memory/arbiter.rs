//! Who gets memory, who waits, who makes room: one decision for one device. Pure.

use std::collections::BTreeSet;

use super::{
    account::Standing,
    eviction::{EvictionPolicy, ResidentModel},
};

/// What the arbiter knows about a model.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) standing: Standing,
    pub(super) pinned: bool,
    pub(super) model: ResidentModel,
}

/// What somebody in the line wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) needed: u64,
    /// For a job: the tenant that is its model.
    pub(super) job_of: Option<usize>,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Grant,
    /// Room is on its way.
    Wait,
    /// No eviction can help.
    Refuse,
    /// The job's model makes room for somebody before it: the job waits for the model to come back.
    Return,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Decision {
    /// One for each request, in their order.
    pub(super) verdicts: Vec<Verdict>,
    /// The tenants that go now.
    pub(super) leaving: BTreeSet<usize>,
    /// The tenants that get no new jobs, and go when they have none.
    pub(super) draining: BTreeSet<usize>,
}

/// Decides on the requests of one device, in their order.
///
/// 1. A request that fits is granted, unless one before it would then not fit.
/// 2. What can never fit, because too much is pinned, is refused.
/// 3. For anything else room is made: parked models go first, then idle ones as the policy chooses, then busy
///    ones, which first finish the jobs they have. A job waits for the memory of other jobs before a model
///    goes for it.
///
/// A model whose job is in the line is not chosen for a request behind it. Together with the order this
/// is why the first in the line always gets its room.
pub(super) fn decide(
    budget: u64,
    in_use: u64,
    working: u64,
    tenants: &[Tenant],
    requests: &[Request],
    policy: &dyn EvictionPolicy,
) -> Decision {
    let leaving = |tenant: &&Tenant| tenant.standing == Standing::Leaving;
    let bytes = |tenant: &Tenant| tenant.model.bytes;
    let mut planner = Planner {
        budget: budget.into(),
        in_use: in_use.into(),
        promised: 0,
        tenants,
        policy,
        in_line: BTreeSet::new(),
        room: Room {
            going: tenants
                .iter()
                .filter(leaving)
                .map(bytes)
                .map(u128::from)
                .sum(),
            working: working.into(),
            ..Room::default()
        },
    };
    // A budget that was lowered below what is in use.
    planner.make_room(0, false);
    let verdicts = requests.iter().map(|request| planner.judge(*request));
    Decision {
        verdicts: verdicts.collect(),
        leaving: planner.room.leaving,
        draining: planner.room.draining,
    }
}

/// What is on its way.
#[derive(Clone, Default)]
struct Room {
    /// Bytes in use that come back without further doing.
    going: u128,
    /// Bytes that running jobs hold; 0 once they are counted as going.
    working: u128,
    leaving: BTreeSet<usize>,
    draining: BTreeSet<usize>,
}

struct Planner<'a> {
    budget: u128,
    in_use: u128,
    /// What those ahead in the line will get.
    promised: u128,
    tenants: &'a [Tenant],
    policy: &'a dyn EvictionPolicy,
    /// Models whose jobs are in the line.
    in_line: BTreeSet<usize>,
    room: Room,
}

impl Planner<'_> {
    fn judge(&mut self, request: Request) -> Verdict {
        let Request { needed, job_of } = request;
        if job_of.is_some_and(|model| self.is_chosen(model)) {
            return Verdict::Return;
        }
        if u128::from(needed) + self.immovable(job_of) > self.budget {
            return Verdict::Refuse;
        }
        self.in_line.extend(job_of);
        let needed = u128::from(needed);
        let before = self.room.clone();
        if !self.make_room(needed, job_of.is_some()) {
            self.room = before;
            return Verdict::Refuse;
        }
        if self.in_use + needed <= self.budget && self.shortage(needed) == 0 {
            self.in_use += needed;
            Verdict::Grant
        } else {
            self.promised += needed;
            Verdict::Wait
        }
    }

    /// What stays, whatever is evicted: pinned models, and the job's own.
    fn immovable(&self, job_of: Option<usize>) -> u128 {
        let stays = |(i, tenant): &(usize, &Tenant)| {
            let held = matches!(tenant.standing, Standing::Loading | Standing::Loaded);
            held && (tenant.pinned || job_of == Some(*i))
        };
        let tenants = self.tenants.iter().enumerate();
        let bytes = tenants.filter(stays).map(|(_, tenant)| tenant.model.bytes);
        bytes.map(u128::from).sum()
    }

    /// What is missing once everything that goes is back, and those ahead have theirs.
    fn shortage(&self, needed: u128) -> u128 {
        (self.in_use + self.promised + needed).saturating_sub(self.budget + self.room.going)
    }

    /// Chooses who goes until there is no shortage, or nobody is left to choose. Returns false where the
    /// policy lets nobody go.
    fn make_room(&mut self, needed: u128, for_job: bool) -> bool {
        while self.shortage(needed) > 0 && self.let_a_parked_one_go() {}
        if for_job {
            self.count_on_jobs();
        }
        let idle = |tenant: &Tenant| tenant.model.jobs == 0;
        if !self.choose(needed, idle) {
            return false;
        }
        if self.shortage(needed) > 0 {
            self.count_on_jobs();
        }
        self.choose(needed, |tenant| !idle(tenant))
    }

    fn count_on_jobs(&mut self) {
        self.room.going += std::mem::take(&mut self.room.working);
    }

    fn let_a_parked_one_go(&mut self) -> bool {
        let parked = |i: &usize| {
            self.tenants[*i].standing == Standing::Parked && !self.room.leaving.contains(i)
        };
        let used = |i: &usize| self.tenants[*i].model.last_used;
        let oldest = (0..self.tenants.len()).filter(parked).min_by_key(used);
        if let Some(oldest) = oldest {
            self.room.going += u128::from(self.tenants[oldest].model.bytes);
            self.room.leaving.insert(oldest);
        }
        oldest.is_some()
    }

    /// Asks the policy, one victim at a time.
    fn choose(&mut self, needed: u128, kind: impl Fn(&Tenant) -> bool) -> bool {
        loop {
            let shortage = self.shortage(needed);
            let candidates = self.candidates(&kind);
            if shortage == 0 || candidates.is_empty() {
                return true;
            }
            let models: Vec<_> = candidates
                .iter()
                .map(|i| self.tenants[*i].model.clone())
                .collect();
            let shortage = shortage.try_into().unwrap_or(u64::MAX);
            let chosen = self.policy.next_victim(shortage, &models);
            let Some(victim) = chosen.and_then(|i| candidates.get(i)) else {
                return false;
            };
            self.room.going += u128::from(self.tenants[*victim].model.bytes);
            if self.tenants[*victim].model.jobs == 0 {
                self.room.leaving.insert(*victim);
            } else {
                self.room.draining.insert(*victim);
            }
        }
    }

    fn candidates(&self, kind: impl Fn(&Tenant) -> bool) -> Vec<usize> {
        let may_go = |i: &usize| {
            let tenant = &self.tenants[*i];
            tenant.standing == Standing::Loaded
                && !tenant.pinned
                && tenant.model.bytes > 0
                && kind(tenant)
                && !self.is_chosen(*i)
                && !self.in_line.contains(i)
        };
        (0..self.tenants.len()).filter(may_go).collect()
    }

    fn is_chosen(&self, tenant: usize) -> bool {
        self.room.leaving.contains(&tenant) || self.room.draining.contains(&tenant)
    }
}

#[cfg(test)]
mod tests;
