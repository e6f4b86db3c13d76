//! What becomes of an `Infer`, whatever the model is doing.

#[path = "jobs/entities.rs"]
mod entities;
#[path = "jobs/serving.rs"]
mod serving;
#[path = "jobs/waiting.rs"]
mod waiting;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeOutput, FakeRequest, run_until},
};

/// What the observers of one app saw, in order.
#[derive(Resource, Default)]
struct Seen {
    steps: Vec<(Entity, u32, u32, Option<u32>)>,
    ends: Vec<(Entity, Result<FakeOutput, InferError>)>,
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()))
        .init_resource::<Seen>()
        .add_observer(|step: On<InferStep<Fake>>, mut seen: ResMut<Seen>| {
            seen.steps
                .push((step.entity, step.step, step.steps, step.partial));
        })
        .add_observer(
            |mut done: On<Inferred<Fake>>, mut seen: ResMut<Seen>, jobs: Query<&Infer<Fake>>| {
                assert!(
                    !jobs.contains(done.entity),
                    "the component is removed first"
                );
                let entity = done.entity;
                seen.ends.push((entity, done.take()));
            },
        );
    app.update();
    app
}

fn manager(app: &mut App) -> Mut<'_, ModelManager<Fake>> {
    app.world_mut().resource_mut()
}

fn spawn(app: &mut App, request: FakeRequest) -> Entity {
    app.world_mut().spawn(Infer::<Fake>::new(request)).id()
}

fn steps(steps: u32) -> FakeRequest {
    FakeRequest { steps, ..default() }
}

fn load(app: &mut App, model: &FakeModel) {
    manager(app).load(model.source());
    run_until(app, "the model", |world| {
        world
            .resource::<ModelManager<Fake>>()
            .current_state
            .is_loaded()
    });
}

fn run_until_ends(app: &mut App, count: usize) {
    run_until(app, "the ends", |world| {
        world.resource::<Seen>().ends.len() >= count
    });
}

fn ends(app: &App) -> &[(Entity, Result<FakeOutput, InferError>)] {
    &app.world().resource::<Seen>().ends
}
