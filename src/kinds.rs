//! [`ModelKinds`]: every kind of model of an app, without its type.

use std::{fmt, sync::Arc};

use bevy::{prelude::*, utils::prelude::ShortName};

use crate::{Infer, ModelManager, ModelState, ModelStatus, Pipeline, SlotId, manager::JobTally};

/// The kinds of models that a [`ModelPlugin`](crate::ModelPlugin) was added for, in that order.
///
/// For whatever shows or steers all models alike, without their types: a panel, a console, a loading screen.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::{ModelKinds, ModelRequest, prelude::*};
///
/// fn leave_the_level(world: &mut World) {
///     let kinds = world.resource::<ModelKinds>().clone();
///     for kind in kinds.iter() {
///         if kind.status(world).is_some_and(|status| status.memory > 100_000_000) {
///             info!("{} goes, with {} jobs", kind.name(), kind.jobs(world));
///             kind.ask(world, ModelRequest::Unload);
///         }
///     }
/// }
///
/// # let mut app = App::new();
/// app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()));
/// app.add_systems(Last, leave_the_level);
/// # app.update();
/// # assert_eq!(app.world().resource::<ModelKinds>().iter().count(), 1);
/// ```
#[derive(Resource, Clone, Default, Debug)]
pub struct ModelKinds(Vec<ModelKind>);

impl ModelKinds {
    /// Returns all kinds.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ModelKind> {
        self.0.iter()
    }

    pub(crate) fn add<P: Pipeline>(&mut self) {
        self.0.push(ModelKind::of::<P>());
    }
}

/// One kind of model: reads and asks its [`ModelManager`].
#[derive(Clone)]
pub struct ModelKind {
    name: Arc<str>,
    manager: fn(&World) -> Option<&dyn Manager>,
    ask: fn(&mut World, ModelRequest),
    jobs: fn(&World) -> usize,
}

impl fmt::Debug for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelKind").field(&self.name).finish()
    }
}

/// What can be asked of a manager whose type is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ModelRequest {
    /// Loads what is wanted, or else what was there last: after a failure that is a retry.
    Load,
    /// See [`ModelManager::cancel`].
    Cancel,
    /// See [`ModelManager::unload`].
    Unload,
    /// See [`ModelManager::reload`].
    Reload,
}

impl ModelKind {
    fn of<P: Pipeline>() -> Self {
        Self {
            name: kind_name::<P>().into(),
            manager: |world| {
                let manager = world.get_resource::<ModelManager<P>>()?;
                Some(manager)
            },
            ask: ask::<P>,
            jobs: count_jobs::<P>,
        }
    }

    /// Returns the name of the pipeline, without its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what the manager reads as; [`None`] where a game has removed it.
    pub fn status<'w>(&self, world: &'w World) -> Option<&'w ModelStatus> {
        self.of_manager(world, Manager::status)
    }

    /// Returns the number under which [`ResourceManager::models`](crate::ResourceManager::models) lists it; [`None`]
    /// where a game has removed the manager.
    pub fn slot(&self, world: &World) -> Option<SlotId> {
        self.of_manager(world, Manager::slot)
    }

    /// Returns how many jobs have not ended, those that run included.
    pub fn jobs(&self, world: &World) -> usize {
        (self.jobs)(world)
    }

    /// Asks the manager. Does nothing where a game has removed it, or where there is nothing to load.
    pub fn ask(&self, world: &mut World, request: ModelRequest) {
        (self.ask)(world, request);
    }

    /// Returns whether the request is worth offering now, as a panel does with its buttons. One that is not does no
    /// harm.
    pub fn can(&self, world: &World, request: ModelRequest) -> bool {
        let useful = |manager: &dyn Manager| is_useful(request, manager.status(), manager.keeps());
        (self.manager)(world).is_some_and(useful)
    }

    pub(crate) fn tally(&self, world: &World) -> Option<JobTally> {
        (self.manager)(world).map(Manager::tally)
    }

    fn of_manager<'w, T>(
        &self,
        world: &'w World,
        read: impl Fn(&'w dyn Manager) -> T,
    ) -> Option<T> {
        (self.manager)(world).map(read)
    }
}

/// What a manager has besides its current model.
#[derive(Clone, Copy, Default)]
struct Keeps {
    /// A model that can be asked for again.
    source: bool,
    /// Models in memory for a switch.
    parked: bool,
}

/// A manager of whatever kind, to read.
trait Manager {
    fn status(&self) -> &ModelStatus;
    fn slot(&self) -> SlotId;
    fn keeps(&self) -> Keeps;
    fn tally(&self) -> JobTally;
}

impl<P: Pipeline> Manager for ModelManager<P> {
    fn status(&self) -> &ModelStatus {
        self
    }

    fn slot(&self) -> SlotId {
        Self::slot(self)
    }

    fn keeps(&self) -> Keeps {
        Keeps {
            source: self.last_source().is_some(),
            parked: self.pipeline().parked().next().is_some(),
        }
    }

    fn tally(&self) -> JobTally {
        Self::tally(self)
    }
}

/// What a kind is called on a screen, in a diagnostic and in the books.
pub(crate) fn kind_name<P: Pipeline>() -> String {
    ShortName::of::<P>().to_string()
}

fn ask<P: Pipeline>(world: &mut World, request: ModelRequest) {
    let Some(mut manager) = world.get_resource_mut::<ModelManager<P>>() else {
        return;
    };
    match request {
        ModelRequest::Load => {
            if let Some(source) = manager.last_source().cloned() {
                manager.load(source);
            }
        }
        ModelRequest::Cancel => manager.cancel(),
        ModelRequest::Unload => manager.unload(),
        ModelRequest::Reload => manager.reload(),
    }
}

/// A job has its component until it has ended.
fn count_jobs<P: Pipeline>(world: &World) -> usize {
    let jobs = world.try_query_filtered::<(), With<Infer<P>>>();
    jobs.map_or(0, |mut jobs| jobs.iter(world).count())
}

fn is_useful(request: ModelRequest, status: &ModelStatus, keeps: Keeps) -> bool {
    let state = status.current_state;
    let is_gone = matches!(state, ModelState::Idle | ModelState::Failed);
    let wants_other = status.wanted.is_some() && status.wanted != status.model_id;
    match request {
        ModelRequest::Load => keeps.source && (is_gone || status.wanted.is_none()),
        ModelRequest::Cancel => match state {
            ModelState::Loading => true,
            ModelState::Unloading => status.wanted.is_some(),
            _ => wants_other && !is_gone,
        },
        ModelRequest::Unload => {
            state != ModelState::Idle || status.wanted.is_some() || keeps.parked
        }
        ModelRequest::Reload => keeps.source && !state.is_busy(),
    }
}

#[cfg(test)]
mod tests {
    use ModelRequest::*;

    use super::*;

    /// The requests that are of use, in a state and with something wanted.
    fn useful(current_state: ModelState, wanted: Option<&str>) -> Vec<ModelRequest> {
        let status = ModelStatus {
            current_state,
            model_id: (current_state.is_busy() || current_state.is_loaded()).then(|| "a".into()),
            wanted: wanted.map(Into::into),
            ..default()
        };
        let all = [Load, Cancel, Unload, Reload];
        let keeps = Keeps {
            source: true,
            parked: false,
        };
        let useful = |request: &ModelRequest| is_useful(*request, &status, keeps);
        all.into_iter().filter(useful).collect()
    }

    #[test]
    fn what_is_of_use_depends_on_the_state() {
        assert_eq!(useful(ModelState::Idle, None), [Load, Reload]);
        assert_eq!(useful(ModelState::Loaded, Some("a")), [Unload, Reload]);
        assert_eq!(
            useful(ModelState::Loaded, Some("b")),
            [Cancel, Unload, Reload]
        );
        assert_eq!(useful(ModelState::Unloading, None), [Load, Unload]);
        assert_eq!(useful(ModelState::Unloading, Some("a")), [Cancel, Unload]);
        assert_eq!(useful(ModelState::Loading, Some("a")), [Cancel, Unload]);
        assert_eq!(
            useful(ModelState::Failed, Some("a")),
            [Load, Unload, Reload]
        );
    }

    #[test]
    fn nothing_can_be_loaded_again_where_nothing_was() {
        let nothing = Keeps::default();
        assert!(!is_useful(Load, &ModelStatus::default(), nothing));
    }
}
