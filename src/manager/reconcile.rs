//! Once a frame: what is wanted against what is.

use std::{any::type_name, sync::Arc, time::Instant};

use bevy::prelude::*;
use tracing::{debug, error};

use super::ModelManager;
use crate::{
    ErrorChain, LoadError, ModelId, ModelState, ModelTransition, Pipeline, Progress,
    TransitionReason,
    loader::{Gone, LoaderService},
    machine::{Facts, ModelAction},
};

/// Takes at most one step. The manager counts as changed only where something did change.
pub(crate) fn reconcile<P: Pipeline>(
    manager: Option<ResMut<ModelManager<P>>>,
    mut loader: ResMut<LoaderService>,
    mut transitions: MessageWriter<ModelTransition<P>>,
) {
    let Some(mut manager) = manager else { return };
    let seen = manager.bypass_change_detection();
    if seen.closed {
        return;
    }
    let progressed = seen.follow_progress();
    let transition = seen.step(&mut loader);
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
        let (progress, memory) = (load.progress(), load.claimed());
        let changed = (progress, memory) != (self.status.progress, self.status.memory);
        (self.status.progress, self.status.memory) = (progress, memory);
        changed
    }

    fn step(&mut self, loader: &mut LoaderService) -> Option<ModelTransition<P>> {
        let facts = Facts {
            wish: self.wishes.wish(),
            built: self.built.is_some(),
            ended: self.gone.as_ref().map(|gone| gone.ended()),
            retry_due: self.is_retry_due(),
        };
        let before = self.status.current_state;
        let step = self.machine.step(facts);
        match step.action {
            Some(ModelAction::Start) => self.start(loader),
            Some(ModelAction::Drop) => self.pipeline.let_go(),
            None => {}
        }
        let waits_for_retry = before == ModelState::Failed && facts.wish.is_load();
        if step.edge.is_some() || waits_for_retry {
            self.mailbox.wake();
        }
        step.edge.map(|(to, reason)| self.enter(to, reason))
    }

    fn start(&mut self, loader: &mut LoaderService) {
        let source = self
            .wishes
            .start()
            .expect("the machine starts only what is wanted");
        self.status.generation += 1;
        self.status.model_id = Some(source.id());
        self.status.last_error = None;
        self.status.progress = Progress::default();
        (self.built, self.gone) = (None, None);
        let load = loader.start(&source, self.status.generation, self.mailbox.clone());
        self.pipeline.hold(source.id(), load);
    }

    /// Shows a new state, with everything that belongs to it.
    pub(super) fn enter(&mut self, to: ModelState, reason: TransitionReason) -> ModelTransition<P> {
        let from = std::mem::replace(&mut self.status.current_state, to);
        let model_id = self.status.model_id.clone();
        match to {
            ModelState::Loading => {}
            ModelState::Loaded => self.become_loaded(),
            ModelState::Unloading => self.status.sample_size = None,
            ModelState::Idle => self.become_empty(),
            ModelState::Failed => self.become_failed(model_id.as_ref()),
        }
        ModelTransition::new(from, to, reason, model_id, self.status.generation)
    }

    fn become_loaded(&mut self) {
        self.status.sample_size = self.built.take().and_then(|built| built.sample_size);
        for job in self.waiting.drain(..) {
            self.pipeline.run(job);
        }
    }

    fn become_empty(&mut self) {
        if let Some(gone) = self.forget() {
            self.status.last_release = Some(gone.report);
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
        self.built = None;
        self.status.model_id = None;
        self.status.memory = 0;
        self.gone.take()
    }
}
