//! The jobs that were asked for, and how they have ended.

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeOutput, FakeRequest},
};

use super::{Game, JOB};
use crate::support::reference::Which;

/// A job that was asked for.
pub(super) struct Asked {
    entity: Entity,
    kind: usize,
    settings: u32,
    steps: u32,
    panics: bool,
    pub(super) living: bool,
    /// No model was wanted for it, or what was wanted has changed since: it may end without one.
    may_be_refused: bool,
    /// The budget was lowered below what is in use while the job lived: where it had not claimed its memory yet, it may
    /// be refused.
    may_lack_room: bool,
}

impl Asked {
    fn check(&self, result: &Result<FakeOutput, InferError>) {
        let fits = match result {
            Ok(output) => {
                !self.panics && (output.settings.value, output.steps) == (self.settings, self.steps)
            }
            Err(InferError::Panicked(_)) => self.panics,
            Err(InferError::OverBudget { .. }) => self.may_lack_room,
            Err(error) => {
                let refuses = matches!(
                    error,
                    InferError::NotLoaded | InferError::ModelFailed(_) | InferError::Unloaded
                );
                refuses && self.may_be_refused
            }
        };
        assert!(fits, "{result:?}");
    }
}

/// What observers saw of all jobs.
#[derive(Resource, Default)]
pub(super) struct Ends(pub(super) Vec<(Entity, Result<FakeOutput, InferError>)>);

impl Game {
    pub fn infer(&mut self, kind: usize, steps: u32, panics: bool) {
        let entity = self.app.world_mut().spawn_empty().id();
        self.insert_job(entity, kind, steps, panics);
    }

    fn insert_job(&mut self, entity: Entity, kind: usize, steps: u32, panic: bool) {
        let request = FakeRequest {
            steps,
            memory: JOB,
            panic,
            ..default()
        };
        let settings = with_kind!(kind, KIND => {
            let settings = self.manager::<KIND>().settings().value;
            let job = Infer::<Fake<KIND>>::new(request).previews_every(2);
            self.app.world_mut().entity_mut(entity).insert(job);
            settings
        });
        let wanted = self.references[kind].wanted;
        self.jobs.push(Asked {
            may_be_refused: !wanted.is_some_and(Which::loads),
            may_lack_room: false,
            entity,
            kind,
            settings,
            steps,
            panics: panic,
            living: true,
        });
    }

    fn living(&self, number: usize) -> Option<usize> {
        let mut living = (0..self.jobs.len()).filter(|job| self.jobs[*job].living);
        let count = living.clone().count();
        living.nth(number.checked_rem(count)?)
    }

    pub fn despawn(&mut self, number: usize) {
        if let Some(job) = self.living(number) {
            self.jobs[job].living = false;
            self.app.world_mut().despawn(self.jobs[job].entity);
        }
    }

    /// Puts another job on the entity of a living one, which ends in silence.
    pub fn replace(&mut self, number: usize) {
        if let Some(job) = self.living(number) {
            self.jobs[job].living = false;
            let (entity, kind) = (self.jobs[job].entity, self.jobs[job].kind);
            self.insert_job(entity, kind, 1, false);
        }
    }

    pub(super) fn jobs_of(&self, kind: usize) -> usize {
        let jobs = self.jobs.iter();
        jobs.filter(|job| job.living && job.kind == kind).count()
    }

    /// What is wanted of a manager has changed: the jobs that it has may end without a model.
    pub(super) fn let_jobs_be_refused(&mut self, kind: usize) {
        let of_kind = self.jobs.iter_mut().filter(|job| job.kind == kind);
        of_kind.for_each(|job| job.may_be_refused = true);
    }

    /// The budget is lowered below what is in use.
    pub(super) fn let_jobs_lack_room(&mut self) {
        let living = self.jobs.iter_mut().filter(|job| job.living);
        living.for_each(|job| job.may_lack_room = true);
    }

    /// Each job whose entity lives ends once, and as it should.
    pub(super) fn note_ends(&mut self) {
        let ends = &self.app.world().resource::<Ends>().0;
        for (entity, result) in &ends[self.ends..] {
            let mut jobs = self.jobs.iter_mut();
            let job = jobs.find(|job| job.living && job.entity == *entity);
            let job = job.expect("only a living job ends, and once");
            job.living = false;
            job.check(result);
        }
        self.ends = ends.len();
    }
}
