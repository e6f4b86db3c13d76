//! Who stays in memory: use, time-out, eviction and parking, as a manager sees them.

use std::{sync::Arc, time::Duration};

use bevy::prelude::*;

use super::ModelManager;
use crate::{
    ModelSource, ModelState, Pipeline, Standing, TransitionReason,
    loader::Load,
    machine::{Ended, Leave, Wish},
    memory::Account,
};

/// Whether a model is parked, and the last of its jobs has ended.
pub(super) fn is_parked(account: &Account) -> bool {
    account.standing() == Standing::Parked && account.jobs() == 0
}

/// Tells the books before memory is granted, also what observers have asked for in this frame.
pub(crate) fn post_residency<P: Pipeline>(manager: Option<Res<ModelManager<P>>>) {
    if let Some(manager) = manager {
        manager.post_residency();
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Tells the books what the game says about its models, and whether it wants the current one.
    pub(super) fn post_residency(&self) {
        let super::Residency {
            pinned, priority, ..
        } = self.residency;
        for load in self.pipeline.loads() {
            load.account().set_residency(pinned, priority);
        }
        if let Some(load) = self.pipeline.load() {
            let stays = matches!(self.wishes.wish(), Wish::AsIs | Wish::Current);
            load.account().set_wanted(stays);
        }
    }

    /// The model was used until now.
    pub(super) fn note_use(&self) {
        if let Some(load) = self.pipeline.load() {
            load.account().set_last_used(self.now);
        }
    }

    /// Whether a loaded model has to go although it is wanted.
    pub(super) fn leave(&self) -> Option<Leave> {
        let load = self.pipeline.load()?;
        if load.account().is_evicted() {
            return Some(Leave::Evicted);
        }
        let due = self.expires_at().is_some_and(|due| due <= self.now);
        due.then_some(Leave::Expired)
    }

    /// When the loaded model's time-out is over, on the app's clock; [`None`] while it has jobs.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        let keep_alive = self.residency.keep_alive?;
        let account = self.pipeline.load()?.account();
        // In this order: the end of a job is sent before the job is counted out.
        let is_idle = self.machine.state() == ModelState::Loaded
            && account.jobs() == 0
            && self.received.is_empty()
            && self.waiting.is_empty();
        is_idle.then(|| account.last_used().saturating_add(keep_alive))
    }

    /// Lets go of the model: for good, or to be parked.
    pub(super) fn let_go(&mut self, reason: Option<TransitionReason>) {
        let evicted = |load: &Load<P>| load.account().is_evicted();
        let parks = reason == Some(TransitionReason::Superseded)
            && self.machine.state() == ModelState::Unloading
            && self.residency.keep_parked > 0
            && !self.pipeline.load().is_none_or(evicted);
        match self.wishes.current().cloned().filter(|_| parks) {
            Some(source) => self.park(source),
            None => self.pipeline.let_go(),
        }
    }

    fn park(&mut self, source: ModelSource) {
        let load = self.pipeline.load();
        self.current.parking = load.map(|load| load.account().clone());
        self.pipeline.park(source, self.status.sample_size);
    }

    /// Lets go of the parked models that make room, are too many, or were asked back. The one that is wanted
    /// next is not too many; where it is to be read again, it goes.
    pub(super) fn thin_out_parked(&mut self) {
        let all = std::mem::take(&mut self.wants_parked_back) || self.closed;
        let afresh = self.wishes.take_afresh();
        let (keep, wanted) = (self.residency.keep_parked, self.wishes.wanted());
        self.pipeline.thin_out_parked(|age, source, load| {
            let is_wanted = wanted == Some(source);
            let may_stay = if is_wanted { !afresh } else { age < keep };
            may_stay && !all && !load.account().is_evicted()
        });
    }

    /// How the current model has ended: its memory is back, or parked.
    pub(super) fn ended(&self) -> Option<Ended> {
        let parked = |account: &&Arc<Account>| account.standing() == Standing::Parked;
        if let Some(parked) = self.current.parking.as_ref().filter(parked) {
            let is_quiet = is_parked(parked) && self.received.is_empty() && !self.is_releasing();
            return is_quiet.then_some(Ended::Released);
        }
        let gone = self.current.gone.as_ref().filter(|_| !self.is_releasing());
        gone.map(|gone| gone.ended())
    }

    /// Whether memory of models that the manager has let go is not back.
    pub(super) fn is_releasing(&self) -> bool {
        let kept = |load: &u64| self.pipeline.loads().any(|kept| kept.generation() == *load);
        let mut others = self
            .alive
            .iter()
            .filter(|load| **load != self.current.generation);
        others.any(|load| !kept(load))
    }

    /// Has the model counted as loaded, from now on.
    pub(super) fn settle_in(&mut self) {
        let Some(account) = self.pipeline.load().map(|load| Arc::clone(load.account())) else {
            return;
        };
        if let Some(since) = self.current.loading_since.take() {
            account.set_reload_cost(since.elapsed());
        }
        account.set_standing(Standing::Loaded);
        account.set_fresh(true);
        self.note_use();
    }
}
