//! Once a frame: what is wanted against what is.

use std::{any::type_name, sync::Arc};

use bevy::{platform::time::Instant, prelude::*};
use tracing::{debug, error};

#[cfg(feature = "test_kit")]
use super::Happening;
use super::ModelManager;
use crate::{
    ErrorChain, InferError, LoadError, ModelId, ModelSource, ModelState, ModelTransition, Pipeline,
    Progress, ResourceManager, TransitionReason,
    loader::{Gone, LoaderService},
    machine::{Facts, ModelAction},
    mailbox::Built,
    signal::Alarm,
};

/// Takes at most one step. The manager counts as changed only where something did change.
pub(crate) fn reconcile<P: Pipeline>(
    manager: Option<ResMut<ModelManager<P>>>,
    mut loader: ResMut<LoaderService>,
    mut memory: ResMut<ResourceManager>,
    mut alarm: ResMut<Alarm>,
    mut transitions: MessageWriter<ModelTransition<P>>,
) {
    let Some(mut manager) = manager else { return };
    let seen = manager.bypass_change_detection();
    if seen.closed {
        return;
    }
    let progressed = seen.follow_progress();
    seen.thin_out_parked();
    let transition = seen.step(&mut loader, memory.bypass_change_detection());
    seen.hand_over_jobs();
    alarm.set(seen.expires_at());
    if progressed || transition.is_some() {
        manager.set_changed();
    }
    if let Some(transition) = transition {
        debug!("{}: {transition:?}", type_name::<P>());
        transitions.write(transition);
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Reads what the load's workers count. Returns whether it has changed.
    fn follow_progress(&mut self) -> bool {
        let Some(load) = self.pipeline.load() else {
            return false;
        };
        let (progress, memory) = (load.progress(), load.account().bytes());
        let changed = (progress, memory) != (self.status.progress, self.status.memory);
        (self.status.progress, self.status.memory) = (progress, memory);
        changed
    }

    fn step(
        &mut self,
        loader: &mut LoaderService,
        memory: &mut ResourceManager,
    ) -> Option<ModelTransition<P>> {
        let now = self.facts();
        let facts = self.received.decide(now)?;
        let before = self.machine.state();
        let step = self.machine.step(facts);
        #[cfg(feature = "test_kit")]
        if step.edge.is_some() || step.action.is_some() {
            self.received.tape.note(Happening::Step(facts));
        }
        match step.action {
            Some(ModelAction::Start) => self.start(loader, memory),
            Some(ModelAction::Drop) => self.let_go(step.edge.map(|(_, reason)| reason)),
            None => {}
        }
        let waits_for_retry = before == ModelState::Failed && facts.wish.is_load();
        if step.edge.is_some() || waits_for_retry {
            self.mailbox.wake();
        }
        step.edge
            .map(|(to, reason)| self.enter((before, to), reason))
    }

    fn facts(&self) -> Facts {
        Facts {
            wish: self.wishes.wish(),
            built: self.current.built.is_some(),
            ended: self.ended(),
            retry_due: self.is_retry_due(),
            leave: self.leave(),
            asleep: self.wishes.is_asleep(),
            job_waits: !self.waiting.is_empty(),
            releasing: self.is_releasing(),
        }
    }

    fn start(&mut self, loader: &mut LoaderService, memory: &mut ResourceManager) {
        let source = self
            .wishes
            .start()
            .expect("the machine starts only what is wanted");
        self.status.generation += 1;
        self.status.model_id = Some(source.id());
        self.status.last_error = None;
        self.status.progress = Progress::default();
        (self.current.built, self.current.gone) = (None, None);
        if !self.come_back(&source) {
            self.current.generation = self.status.generation;
            self.alive.push(self.current.generation);
            self.current.loading_since = Some(Instant::now());
            let mailbox = self.mailbox.clone();
            let load = loader.start(&source, self.current.generation, self.seat, memory, mailbox);
            self.pipeline.hold(source.id(), load);
        }
        self.post_residency();
    }

    /// Takes the model back where it is parked: it is ready at once.
    fn come_back(&mut self, source: &ModelSource) -> bool {
        let Some((load, sample_size)) = self.pipeline.take_parked(source) else {
            return false;
        };
        self.current.loading_since = None;
        self.current.generation = load.generation();
        self.current.built = Some(Built {
            generation: self.current.generation,
            sample_size,
        });
        self.pipeline.hold(source.id(), Some(load));
        true
    }

    /// Shows a new state, with everything that belongs to it.
    pub(super) fn enter(
        &mut self,
        (from, to): (ModelState, ModelState),
        reason: TransitionReason,
    ) -> ModelTransition<P> {
        self.status.current_state = to;
        let model_id = self.status.model_id.clone();
        match to {
            ModelState::Loading => {}
            ModelState::Loaded => self.become_loaded(),
            ModelState::Unloading => self.begin_to_unload(reason),
            ModelState::Idle => self.become_empty(),
            ModelState::Failed => self.become_failed(model_id.as_ref()),
        }
        ModelTransition::new(from, to, reason, model_id, self.status.generation)
    }

    fn become_loaded(&mut self) {
        let built = self.current.built.take();
        self.status.sample_size = built.and_then(|built| built.sample_size);
        self.settle_in();
    }

    fn begin_to_unload(&mut self, reason: TransitionReason) {
        self.status.sample_size = None;
        self.current.leaves_for_good = !matches!(
            reason,
            TransitionReason::Evicted | TransitionReason::Expired
        );
        let since = self.current.leaves_from.take();
        if self.current.leaves_for_good {
            let comes = self.wishes.wish().is_load() && !self.closed;
            let next = since.filter(|_| comes);
            self.refuse_waiting(&InferError::Unloaded, next);
        } else {
            self.wishes.fall_asleep();
        }
    }

    fn become_empty(&mut self) {
        if let Some(gone) = self.forget() {
            self.status.last_release = Some(*gone.report);
        }
    }

    fn become_failed(&mut self, model_id: Option<&ModelId>) {
        let error = self
            .forget()
            .and_then(|gone| gone.error)
            .unwrap_or(LoadError::DeviceLost);
        let name = model_id.map(ToString::to_string).unwrap_or_default();
        error!("the model `{name}` failed: {}", ErrorChain(&error));
        self.status.last_error = Some(Arc::new(error));
        self.failed_at = Some(Instant::now());
        self.wishes.fail();
    }

    /// Lets go of everything that belongs to the last load.
    fn forget(&mut self) -> Option<Gone> {
        self.pipeline.forget();
        self.current.built = None;
        self.current.leaves_for_good = false;
        self.current.parking = None;
        self.status.model_id = None;
        self.status.memory = 0;
        self.current.gone.take().map(|gone| *gone)
    }
}
