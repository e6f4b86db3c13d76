//! Jobs: insert [`Infer`] on an entity, observe [`InferStep`] and [`Inferred`] there.

use std::{
    any::type_name,
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use bevy::{
    ecs::{lifecycle::HookContext, world::DeferredWorld},
    prelude::*,
};

use tracing::error;

use crate::{
    InferError, ModelManager, Pipeline,
    lifeline::{Lifeline, Watch},
};

mod delivery;
mod host;
mod job;
mod serve;
mod steps;

pub(crate) use delivery::deliver;
pub(crate) use host::Host;
pub(crate) use job::{End, Job};
pub(crate) use serve::serve;
pub use steps::Steps;
use steps::{Latest, Reporter, Step};

/// Tells one `Infer` from the next on the same entity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct JobId(u64);

impl JobId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A job for the model of kind `P`, as a component.
///
/// Inserting it starts the job, or queues it; the settings of that moment count. When the job is done
/// the component is removed, and then [`Inferred`] is triggered on the entity, exactly once. Removing
/// it, replacing it or despawning the entity cancels the job in silence; its memory is freed at its
/// next step.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// fn forge(mut commands: Commands) {
///     let request = DdpmRequest { class: Some(3), seed: 7, ..default() };
///     commands
///         .spawn(Infer::<DdpmPipeline>::new(request).previews_every(5))
///         .observe(|step: On<InferStep<DdpmPipeline>>| info!("step {} of {}", step.step, step.steps))
///         .observe(show);
/// }
///
/// fn show(mut done: On<Inferred<DdpmPipeline>>, mut images: ResMut<Assets<Image>>, mut commands: Commands) {
///     match done.take() {
///         Ok(output) => {
///             for image in output.images() {
///                 commands.spawn(Sprite::from_image(images.add(image)));
///             }
///         }
///         Err(error) => warn!("no picture: {}", ErrorChain(&error)),
///     }
/// }
/// # bevy::ecs::system::assert_is_system(forge);
/// ```
///
/// | the model is | the job |
/// |---|---|
/// | not loaded, and nothing is wanted | ends in the next frame with [`NotLoaded`](crate::InferError::NotLoaded) |
/// | Idle, Loading or Unloading with a load wanted, or evicted or expired but still wanted | waits |
/// | Failed | ends with [`ModelFailed`](crate::InferError::ModelFailed), but waits where another load is wanted |
/// | Loaded | runs, first come first served, when its working memory fits |
/// | Loaded, and another load was asked for before it | waits for that |
/// | unloaded, reloaded or superseded meanwhile | ends with [`Unloaded`](crate::InferError::Unloaded) at its next step |
/// | too large with the job's working memory for the budget | ends with [`OverBudget`](crate::InferError::OverBudget) |
/// | on a device that is lost | ends with [`Failed`](crate::InferError::Failed), whose source is the model's [`LoadError`](crate::LoadError) |
/// | of a kind without a [`ModelPlugin`](crate::ModelPlugin) | ends with [`NotLoaded`](crate::InferError::NotLoaded), and an error is logged |
/// | panicking | ends with [`Panicked`](crate::InferError::Panicked); the model and the app go on |
///
/// One that is taken out (`EntityWorldMut::take`) and kept goes on for nobody until it is dropped: make another instead
/// of putting it elsewhere.
#[derive(Component)]
#[component(immutable, on_insert = queue_job::<P>)]
pub struct Infer<P: Pipeline> {
    request: P::Request,
    previews: Option<NonZeroU32>,
    id: JobId,
    latest: Latest<P::Partial>,
    watch: Watch,
    _lifeline: Lifeline,
}

impl<P: Pipeline> Infer<P> {
    /// Makes a job without previews.
    pub fn new(request: P::Request) -> Self {
        let (lifeline, watch) = Lifeline::new();
        Self {
            request,
            previews: None,
            id: JobId::next(),
            latest: Latest::new(),
            watch,
            _lifeline: lifeline,
        }
    }

    /// Asks for a preview with every `n`th step; 0 is none.
    #[must_use]
    pub fn previews_every(mut self, n: u32) -> Self {
        self.previews = NonZeroU32::new(n);
        self
    }

    /// Returns what the model is asked for.
    pub fn request(&self) -> &P::Request {
        &self.request
    }

    #[cfg(feature = "test_kit")]
    pub(crate) fn id(&self) -> JobId {
        self.id
    }
}

/// Hands the job to the manager; sends it on at once where the model is loaded, which saves a frame.
fn queue_job<P: Pipeline>(mut world: DeferredWorld, context: HookContext) {
    let infer = world
        .get::<Infer<P>>(context.entity)
        .expect("the hook runs after the insertion");
    let (id, previews, request) = (infer.id, infer.previews, infer.request.clone());
    let (latest, watch) = (infer.latest.clone(), infer.watch.clone());
    let entity = context.entity;
    let Some(mut manager) = world.get_resource_mut::<ModelManager<P>>() else {
        return refuse_without_manager::<P>(world, entity, id);
    };
    manager
        .bypass_change_detection()
        .queue(|mailbox, settings| {
            let (signal, gate) = (mailbox.signal(), mailbox.gate());
            Job::new(
                End::guard(entity, id, mailbox),
                request,
                settings,
                Reporter {
                    latest,
                    previews,
                    signal,
                    gate,
                },
                watch,
            )
        });
}

fn refuse_without_manager<P: Pipeline>(mut world: DeferredWorld, entity: Entity, id: JobId) {
    error!(
        "add `ModelPlugin::<{}>::default()` to the app before a job of this kind",
        type_name::<P>()
    );
    let end = End::<P> {
        entity,
        id,
        result: Err(InferError::NotLoaded),
        ran: None,
    };
    world
        .commands()
        .queue(move |world: &mut World| delivery::end(world, end));
}

impl<P: Pipeline> fmt::Debug for Infer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Infer")
            .field("previews", &self.previews)
            .finish_non_exhaustive()
    }
}

/// Triggered on the job's entity after a step. A slow game sees the latest one.
#[derive(EntityEvent)]
pub struct InferStep<P: Pipeline> {
    /// The entity that the [`Infer`] is on.
    pub entity: Entity,
    /// The step that was just done, 1 to `steps`.
    pub step: u32,
    /// How many steps the job has.
    pub steps: u32,
    /// The latest preview that the game asked for and has not seen: of this step, or of one before it that a later
    /// step overtook.
    pub partial: Option<P::Partial>,
}

impl<P: Pipeline> fmt::Debug for InferStep<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InferStep")
            .field("entity", &self.entity)
            .field("step", &self.step)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// Triggered on the job's entity when the job has ended, after its [`Infer`] was removed: an observer
/// can insert the next one.
#[derive(EntityEvent)]
pub struct Inferred<P: Pipeline> {
    /// The entity that the [`Infer`] was on.
    pub entity: Entity,
    /// The output, or why there is none.
    pub result: Result<P::Output, InferError>,
}

/// Whatever the output is, it is not shown.
impl<P: Pipeline> fmt::Debug for Inferred<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inferred")
            .field("entity", &self.entity)
            .field("result", &self.result.as_ref().map(drop))
            .finish()
    }
}

impl<P: Pipeline> Inferred<P> {
    /// Takes the output by value and leaves [`InferError::Taken`] to the event's other observers.
    ///
    /// # Errors
    /// Where there is no output: what `result` says, which stays.
    pub fn take(&mut self) -> Result<P::Output, InferError> {
        match &mut self.result {
            Err(error) => Err(error.clone()),
            output => std::mem::replace(output, Err(InferError::Taken)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DdpmOutput, DdpmPipeline};

    #[derive(Resource, Default)]
    struct Seen(Vec<Result<DdpmOutput, InferError>>);

    /// What two observers of the same end take.
    fn taken_by_two(result: Result<DdpmOutput, InferError>) -> Vec<Result<DdpmOutput, InferError>> {
        let take = |mut done: On<Inferred<DdpmPipeline>>, mut seen: ResMut<Seen>| {
            seen.0.push(done.take());
        };
        let mut world = World::new();
        world.init_resource::<Seen>();
        let entity = world.spawn_empty().observe(take).observe(take).id();
        world.trigger(Inferred::<DdpmPipeline> { entity, result });
        world.remove_resource::<Seen>().expect("it was inserted").0
    }

    #[test]
    fn an_output_is_taken_once_and_the_second_observer_hears_that() {
        let taken = taken_by_two(Ok(DdpmOutput::default()));
        assert!(
            matches!(taken[..], [Ok(_), Err(InferError::Taken)]),
            "{taken:?}"
        );
    }

    #[test]
    fn every_observer_hears_why_a_job_failed() {
        let taken = taken_by_two(Err(InferError::NotLoaded));
        assert!(
            matches!(
                taken[..],
                [Err(InferError::NotLoaded), Err(InferError::NotLoaded)]
            ),
            "{taken:?}"
        );
    }
}
