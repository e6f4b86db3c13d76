//! [`PipelineManager`]: the tickets of the loaded pipeline and of the parked ones.

use bevy::math::UVec2;

use crate::{ModelId, ModelSource, Pipeline, infer::Job, loader::Load, memory::Standing};

/// Holds what a manager keeps of the loaded pipeline, its id and its settings, and the tickets of parked ones; the
/// pipelines themselves never leave the device thread.
pub struct PipelineManager<P: Pipeline> {
    id: Option<ModelId>,
    load: Option<Load<P>>,
    /// The last one was loaded last.
    parked: Vec<Parked<P>>,
    settings: P::Settings,
}

/// A model that stays in memory while another one is used.
struct Parked<P: Pipeline> {
    source: ModelSource,
    sample_size: Option<UVec2>,
    load: Load<P>,
}

impl<P: Pipeline> Default for PipelineManager<P> {
    fn default() -> Self {
        Self {
            id: None,
            load: None,
            parked: Vec::new(),
            settings: P::Settings::default(),
        }
    }
}

impl<P: Pipeline> PipelineManager<P> {
    /// Returns the id of the model that is loading, loaded or unloading.
    pub fn id(&self) -> Option<&ModelId> {
        self.id.as_ref()
    }

    /// Returns the ids of the models that are parked, the one that goes first in front.
    pub fn parked(&self) -> impl Iterator<Item = ModelId> + '_ {
        self.parked.iter().map(|parked| parked.source.id())
    }

    /// Returns the settings for the next job. They survive a reload.
    pub fn settings(&self) -> &P::Settings {
        &self.settings
    }

    pub(super) fn settings_mut(&mut self) -> &mut P::Settings {
        &mut self.settings
    }

    pub(super) fn hold(&mut self, id: ModelId, load: Option<Load<P>>) {
        self.id = Some(id);
        self.load = load;
    }

    pub(super) fn load(&self) -> Option<&Load<P>> {
        self.load.as_ref()
    }

    /// The loads that are held: the current one, and the parked ones.
    pub(super) fn loads(&self) -> impl Iterator<Item = &Load<P>> {
        let parked = self.parked.iter().map(|parked| &parked.load);
        self.load.iter().chain(parked)
    }

    /// Lets go of the load or the model: the drop of the ticket cancels the one and unloads the other.
    pub(super) fn let_go(&mut self) {
        if let Some(load) = self.load.take() {
            load.account().set_standing(Standing::Leaving);
        }
    }

    pub(super) fn forget(&mut self) {
        self.let_go();
        self.id = None;
    }

    pub(super) fn run(&self, job: Job<P>) {
        if let Some(load) = &self.load {
            load.run(job);
        }
    }

    /// Parks the loaded model: its jobs end, its memory stays.
    pub(super) fn park(&mut self, source: ModelSource, sample_size: Option<UVec2>) {
        if let Some(mut load) = self.load.take() {
            load.end_session();
            load.account().set_standing(Standing::Parked);
            self.parked.push(Parked {
                source,
                sample_size,
                load,
            });
        }
    }

    /// Takes a parked model back.
    pub(super) fn take_parked(&mut self, source: &ModelSource) -> Option<(Load<P>, Option<UVec2>)> {
        let found = self
            .parked
            .iter()
            .position(|parked| parked.source == *source)?;
        let Parked {
            load, sample_size, ..
        } = self.parked.remove(found);
        load.account().set_standing(Standing::Loading);
        Some((load, sample_size))
    }

    /// Lets go of the parked models that `stays` does not keep; it gets each with its distance from the one
    /// that was parked last.
    pub(super) fn thin_out_parked(
        &mut self,
        stays: impl Fn(usize, &ModelSource, &Load<P>) -> bool,
    ) {
        let mut age = self.parked.len();
        self.parked.retain(|parked| {
            age -= 1;
            let stays = stays(age, &parked.source, &parked.load);
            if !stays {
                parked.load.account().set_standing(Standing::Leaving);
            }
            stays
        });
    }
}
