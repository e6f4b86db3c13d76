//! [`ModelManager`]: what a game asks of its models of one kind, and reads of them.

use std::{ops::Deref, time::Duration};

use bevy::{platform::time::Instant, prelude::*};
use crossbeam_channel::unbounded;

use crate::{
    DeviceChoice, ModelSource, ModelState, Pipeline, ResourceManager, SlotId, StateManager,
    frame_guard::StepGate,
    infer::{End, JobId},
    loader::Seat,
    machine::Wish,
    mailbox::Mailbox,
    signal::Signal,
};

mod current;
mod inbox;
mod jobs;
mod pipeline;
mod reconcile;
mod residency;
mod shutdown;
mod status;
mod stay;
#[cfg(feature = "test_kit")]
mod tape;
mod wishes;

use current::Current;
use inbox::Inbox;
pub(crate) use jobs::JobTally;
use jobs::Waiting;
pub use pipeline::PipelineManager;
pub(crate) use reconcile::reconcile;
pub use residency::Residency;
pub(crate) use shutdown::{let_go, wait_for_memory};
pub use status::ModelStatus;
pub(crate) use stay::post_residency;
#[cfg(feature = "test_kit")]
pub use tape::{Happening, News};
use wishes::Wishes;

/// How long a failed model is left alone before the same source is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The manager of the models of kind `P`, as a resource: one loaded model at a time.
///
/// Reads as [`ModelStatus`]: `manager.current_state`, `manager.sample_size` and so on are plain fields
/// that nobody can write. The requests return nothing, so that a closure around one is a system.
///
/// Requests only write down what is wanted. Once a frame, in `PreUpdate`, the manager compares that with what is, and
/// takes at most one step. So all requests of a frame collapse into the last intention, and no state is ever skipped or
/// seen twice.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// fn enter_the_forge(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
///     sprites.load("models/sprites");
/// }
///
/// fn leave_the_forge(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
///     sprites.unload();
/// }
///
/// fn show(sprites: Res<ModelManager<DdpmPipeline>>) {
///     info!("{:?}, {:?} pixels, {} bytes", sprites.current_state, sprites.sample_size, sprites.memory);
/// }
/// # bevy::ecs::system::assert_is_system(enter_the_forge);
/// # bevy::ecs::system::assert_is_system(leave_the_forge);
/// # bevy::ecs::system::assert_is_system(show);
/// ```
///
/// | state | `load(same)` | `load(other)` | `reload()` | `unload()` | `cancel()` |
/// |---|---|---|---|---|---|
/// | Idle | → Loading | → Loading | → Loading the last source | – | – |
/// | Loading | – | → Idle, memory back, → Loading | – | → Idle | → Idle |
/// | Loading, cancel under way | waits, then → Idle → Loading | the same | the same | forgets what waits | forgets what waits |
/// | Loaded | – | → Unloading → Idle → Loading | → Unloading → Idle → Loading | → Unloading → Idle | – |
/// | Unloading | waits, then → Loading | the same | the same | forgets what waits | forgets what waits |
/// | Failed | → Loading, at most once a second | → Loading | → Loading | → Idle | – |
///
/// A model that was evicted or has expired is Idle and still [`wanted`](ModelStatus::wanted): a job or a new
/// `load` brings it back. See [`Residency`].
#[derive(Resource, Reflect)]
#[reflect(Resource)]
#[reflect(type_path = false, from_reflect = false, where P: Pipeline)]
pub struct ModelManager<P: Pipeline> {
    status: ModelStatus,
    #[reflect(ignore)]
    machine: StateManager,
    #[reflect(ignore)]
    wishes: Wishes,
    #[reflect(ignore)]
    pipeline: PipelineManager<P>,
    #[reflect(ignore)]
    seat: Seat,
    residency: Residency,
    /// The game has asked for the memory of parked models, too.
    #[reflect(ignore)]
    wants_parked_back: bool,
    #[reflect(ignore)]
    waiting: Waiting<P>,
    #[reflect(ignore)]
    tally: JobTally,
    #[reflect(ignore)]
    mailbox: Mailbox<P>,
    #[reflect(ignore)]
    received: Inbox<P>,
    #[reflect(ignore)]
    current: Current,
    /// The generations of all loads whose memory is not back.
    #[reflect(ignore)]
    alive: Vec<u64>,
    /// The clock of the app, as of the last look.
    #[reflect(ignore)]
    now: Duration,
    #[reflect(ignore)]
    failed_at: Option<Instant>,
    /// Jobs that ended while the app waited for its models to end.
    #[reflect(ignore)]
    late_ends: Vec<End<P>>,
    /// The app ends: nothing is wanted any more.
    #[reflect(ignore)]
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
        let gate = world.get_resource_or_init::<StepGate>().clone();
        let slot = world.get_resource_or_init::<ResourceManager>().add_slot();
        let (sender, received) = unbounded();
        Self {
            status: ModelStatus::default(),
            machine: StateManager::default(),
            wishes: Wishes::default(),
            pipeline: PipelineManager::default(),
            seat: Seat { slot, device: None },
            residency: Residency::default(),
            wants_parked_back: false,
            waiting: Waiting::default(),
            tally: JobTally::default(),
            mailbox: Mailbox::new(sender, signal, gate),
            received: Inbox::new(received),
            current: Current::default(),
            alive: Vec::new(),
            now: Duration::ZERO,
            failed_at: None,
            late_ends: Vec::new(),
            closed: false,
        }
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Asks for a model. A load in progress of another one is cancelled, a loaded other one unloaded,
    /// or parked ([`Residency::keep_parked`](crate::Residency::keep_parked)).
    pub fn load(&mut self, source: impl Into<ModelSource>) {
        let source = source.into();
        #[cfg(feature = "test_kit")]
        self.received.tape.note(Happening::Load(source.clone()));
        self.wants_parked_back = false;
        self.wishes.load(source);
        self.asked();
    }

    /// Asks for a model anew: the one that was asked for last and is not there yet, else the loaded one, else the last one
    /// that was. While it loads there is nothing to reload. It is read again, parked or not.
    pub fn reload(&mut self) {
        #[cfg(feature = "test_kit")]
        self.received.tape.note(Happening::Reload);
        self.wishes.reload(self.machine.state());
        self.asked();
    }

    /// Takes back every load that is not finished. What is loaded stays.
    pub fn cancel(&mut self) {
        #[cfg(feature = "test_kit")]
        self.received.tape.note(Happening::Cancel);
        self.wishes.cancel(self.machine.state());
        self.asked();
    }

    /// Asks for the memory: unloads what is loaded and what is parked, cancels what is loading.
    pub fn unload(&mut self) {
        #[cfg(feature = "test_kit")]
        self.received.tape.note(Happening::Unload);
        self.wants_parked_back = true;
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

    /// Returns how long models stay in memory.
    pub fn residency(&self) -> &Residency {
        &self.residency
    }

    /// Returns how long models stay in memory, to change it; what is loaded follows in the next frame.
    pub fn residency_mut(&mut self) -> &mut Residency {
        self.mailbox.wake();
        &mut self.residency
    }

    /// Returns the number under which [`ResourceManager::models`] lists this manager's models.
    pub fn slot(&self) -> SlotId {
        self.seat.slot
    }

    /// Returns the loaded pipeline's id and settings, and who is parked; the pipelines themselves never leave the device
    /// thread.
    ///
    /// ```
    /// use bevy::prelude::*;
    /// use bevy_candle::prelude::*;
    ///
    /// fn list(sprites: Res<ModelManager<DdpmPipeline>>) {
    ///     for model in sprites.pipeline().parked() {
    ///         info!("{model} comes back without a read");
    ///     }
    /// }
    /// # bevy::ecs::system::assert_is_system(list);
    /// ```
    pub fn pipeline(&self) -> &PipelineManager<P> {
        &self.pipeline
    }

    /// Returns what is wanted, or else what was there last.
    pub(crate) fn last_source(&self) -> Option<&ModelSource> {
        self.wishes.wanted().or_else(|| self.wishes.current())
    }

    /// Returns the state that the machine is in, whatever an inspector has written into what is shown.
    pub(crate) fn actual_state(&self) -> ModelState {
        self.machine.state()
    }

    /// Whether the app ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the settings of the plugin.
    pub(crate) fn configure(&mut self, device: Option<DeviceChoice>, residency: Residency) {
        self.seat.device = device;
        self.residency = residency;
    }

    fn asked(&mut self) {
        self.status.wanted = self.wishes.wanted().map(ModelSource::id);
        let leaves = self.machine.state() == ModelState::Loaded
            && matches!(self.wishes.wish(), Wish::Nothing | Wish::Other | Wish::Anew);
        let since = self.current.leaves_from;
        self.current.leaves_from = leaves.then(|| since.unwrap_or_else(JobId::next));
        self.mailbox.wake();
    }

    fn is_retry_due(&self) -> bool {
        self.failed_at
            .is_none_or(|failed| failed.elapsed() >= RETRY_AFTER)
    }
}
