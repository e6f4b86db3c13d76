//! [`ModelManager`]: what a game asks of its models of one kind, and reads of them.
//!
//! Requests only write down what is wanted. Once a frame, in `PreUpdate`, the manager compares that with
//! what is, and takes at most one step. So all requests of a frame collapse into the last intention, and
//! no state is ever skipped or seen twice.
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_candle::prelude::*;
//!
//! fn enter_the_forge(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
//!     sprites.load("models/sprites");
//! }
//!
//! fn leave_the_forge(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
//!     sprites.unload();
//! }
//!
//! fn show(sprites: Res<ModelManager<DdpmPipeline>>) {
//!     info!("{:?}, {:?} pixels, {} bytes", sprites.current_state, sprites.sample_size, sprites.memory);
//! }
//! # bevy::ecs::system::assert_is_system(enter_the_forge);
//! # bevy::ecs::system::assert_is_system(leave_the_forge);
//! # bevy::ecs::system::assert_is_system(show);
//! ```

use std::{
    collections::VecDeque,
    ops::Deref,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use crossbeam_channel::{Receiver, unbounded};

use crate::{
    InferError, ModelSource, ModelState, Pipeline, PipelineManager, StateManager,
    infer::{End, Job},
    loader::Gone,
    machine::Wish,
    signal::Signal,
};

mod mailbox;
mod reconcile;
mod shutdown;
mod status;
mod wishes;

pub(crate) use mailbox::{Built, Event, Mailbox};
pub(crate) use reconcile::reconcile;
pub(crate) use shutdown::{let_go, wait_for_memory};
pub use status::ModelStatus;
use wishes::Wishes;

/// How long a failed model is left alone before the same source is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The manager of the models of kind `P`, as a resource: one loaded model at a time.
///
/// Reads as [`ModelStatus`]: `manager.current_state`, `manager.sample_size` and so on are plain fields
/// that nobody can write. The requests return nothing, so that a closure around one is a system.
///
/// | state | `load(same)` | `load(other)` | `reload()` | `unload()` | `cancel()` |
/// |---|---|---|---|---|---|
/// | Idle | → Loading | → Loading | → Loading the last source | – | – |
/// | Loading | – | → Idle, memory back, → Loading | – | → Idle | → Idle |
/// | Loading, cancel under way | waits, then → Idle → Loading | the same | the same | forgets what waits | forgets what waits |
/// | Loaded | – | → Unloading → Idle → Loading | → Unloading → Idle → Loading | → Unloading → Idle | – |
/// | Unloading | waits, then → Loading | the same | the same | forgets what waits | forgets what waits |
/// | Failed | → Loading, at most once a second | → Loading | → Loading | → Idle | – |
#[derive(Resource)]
pub struct ModelManager<P: Pipeline> {
    status: ModelStatus,
    machine: StateManager,
    wishes: Wishes,
    pipeline: PipelineManager<P>,
    waiting: VecDeque<Job<P>>,
    mailbox: Mailbox<P>,
    received: Receiver<Event<P>>,
    built: Option<Built>,
    gone: Option<Gone>,
    failed_at: Option<Instant>,
    /// Jobs that ended while the app waited for its models to end.
    late_ends: Vec<End<P>>,
    /// The app ends: nothing is wanted any more.
    closed: bool,
}

impl<P: Pipeline> Deref for ModelManager<P> {
    type Target = ModelStatus;

    fn deref(&self) -> &ModelStatus {
        &self.status
    }
}

impl<P: Pipeline> FromWorld for ModelManager<P> {
    fn from_world(world: &mut World) -> Self {
        let signal = world.get_resource_or_init::<Signal>().clone();
        let (sender, received) = unbounded();
        Self {
            status: ModelStatus::default(),
            machine: StateManager::default(),
            wishes: Wishes::default(),
            pipeline: PipelineManager::default(),
            waiting: VecDeque::new(),
            mailbox: Mailbox::new(sender, signal),
            received,
            built: None,
            gone: None,
            failed_at: None,
            late_ends: Vec::new(),
            closed: false,
        }
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Asks for a model. A load in progress of another one is cancelled, a loaded other one unloaded.
    pub fn load(&mut self, source: impl Into<ModelSource>) {
        self.wishes.load(source.into());
        self.asked();
    }

    /// Asks for the same model anew: the loaded one, or the last one that was.
    pub fn reload(&mut self) {
        self.wishes.reload(self.machine.state());
        self.asked();
    }

    /// Takes back every load that is not finished. What is loaded stays.
    pub fn cancel(&mut self) {
        self.wishes.cancel(self.machine.state());
        self.asked();
    }

    /// Asks for the memory: unloads what is loaded, cancels what is loading.
    pub fn unload(&mut self) {
        self.wishes.unload();
        self.asked();
    }

    /// Returns the settings for the next job.
    pub fn settings(&self) -> &P::Settings {
        self.pipeline.settings()
    }

    /// Returns the settings, to change them: in every state, from the next job on. They survive a
    /// reload.
    pub fn settings_mut(&mut self) -> &mut P::Settings {
        self.pipeline.settings_mut()
    }

    /// Returns the loaded pipeline's id and settings; the pipeline itself never leaves the device thread.
    pub fn pipeline(&self) -> &PipelineManager<P> {
        &self.pipeline
    }

    /// Whether the app ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn asked(&mut self) {
        self.status.wanted = self.wishes.wanted().map(ModelSource::id);
        self.mailbox.wake();
    }

    /// Takes a new job: runs it where the model is loaded, else keeps it.
    pub(crate) fn queue(&mut self, job: impl FnOnce(Mailbox<P>, P::Settings) -> Job<P>) {
        let job = job(self.mailbox.clone(), self.settings().clone());
        if self.machine.state() == ModelState::Loaded {
            self.pipeline.run(job);
        } else {
            self.waiting.push_back(job);
            self.mailbox.wake();
        }
    }

    /// Takes in what the workers have sent, and returns the jobs that have ended.
    pub(crate) fn collect(&mut self) -> Vec<End<P>> {
        self.refuse_hopeless_jobs();
        let mut ends = std::mem::take(&mut self.late_ends);
        for event in self.received.try_iter() {
            match event {
                Event::Built(built) if built.generation == self.status.generation => {
                    self.built = Some(built);
                }
                Event::Gone(gone) if gone.generation == self.status.generation => {
                    self.gone = Some(gone);
                }
                Event::End(end) => ends.push(end),
                Event::Built(_) | Event::Gone(_) => {}
            }
        }
        ends
    }

    /// Ends the jobs that wait for a model which will not come.
    fn refuse_hopeless_jobs(&mut self) {
        self.waiting.retain(Job::is_wanted);
        if self.is_model_coming() {
            return;
        }
        let has_failed = self.machine.state() == ModelState::Failed;
        let reason = has_failed.then(|| self.status.last_error.clone()).flatten();
        for job in self.waiting.drain(..) {
            job.refuse(
                reason
                    .clone()
                    .map_or(InferError::NotLoaded, InferError::ModelFailed),
            );
        }
    }

    /// Whether a load is wanted that starts by itself. A failed model that is wanted again before its
    /// time has failed, as far as jobs are concerned.
    fn is_model_coming(&self) -> bool {
        let wish = self.wishes.wish();
        let too_soon = self.machine.state() == ModelState::Failed
            && wish == Wish::Current
            && !self.is_retry_due();
        wish.is_load() && !too_soon && !self.closed
    }

    fn is_retry_due(&self) -> bool {
        self.failed_at
            .is_none_or(|failed| failed.elapsed() >= RETRY_AFTER)
    }
}
