//! Brings steps and ends back to their entities.

use bevy::prelude::*;

use super::{End, Infer, InferStep, Inferred, JobId};
use crate::{ModelManager, Pipeline};

/// Triggers what has happened since the last frame: first the latest step of each job, then the ends.
pub(crate) fn deliver<P: Pipeline>(world: &mut World, jobs: &mut QueryState<(Entity, &Infer<P>)>) {
    let with_news = |(entity, infer): (Entity, &Infer<P>)| {
        (!infer.latest.is_empty()).then_some((entity, infer.id))
    };
    let news: Vec<_> = jobs.iter(world).filter_map(with_news).collect();
    for (entity, id) in news {
        step::<P>(world, entity, id);
    }
    let now = world.get_resource::<Time<Real>>().map(Time::elapsed);
    let Some(mut manager) = world.get_resource_mut::<ModelManager<P>>() else {
        return;
    };
    let ends = manager.bypass_change_detection().collect(now);
    for end in ends {
        self::end(world, end);
    }
}

/// The `Infer` of a job, unless the entity has none or a newer one by now.
fn current<P: Pipeline>(world: &World, entity: Entity, id: JobId) -> Option<&Infer<P>> {
    world.get::<Infer<P>>(entity).filter(|infer| infer.id == id)
}

fn step<P: Pipeline>(world: &mut World, entity: Entity, id: JobId) {
    let latest = current::<P>(world, entity, id).and_then(|infer| infer.latest.take());
    if let Some(latest) = latest {
        let super::Step {
            step,
            steps,
            partial,
        } = latest;
        world.trigger(InferStep::<P> {
            entity,
            step,
            steps,
            partial,
        });
    }
}

/// Removes the component first, so that an observer can insert the next job on the same entity.
pub(super) fn end<P: Pipeline>(world: &mut World, end: End<P>) {
    let End {
        entity, id, result, ..
    } = end;
    step::<P>(world, entity, id);
    if current::<P>(world, entity, id).is_some() {
        world.entity_mut(entity).remove::<Infer<P>>();
        world.trigger(Inferred::<P> { entity, result });
    }
}
