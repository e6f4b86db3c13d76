//! An app with three kinds of fake models under one budget.

#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_candle::{
    DeviceMemory,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Recorder, RecorderPlugin, run_until},
};

/// A fake model has 4 MiB unless it is told otherwise.
pub const MIB: u64 = 1 << 20;

/// Each job that has ended: its entity, and why it failed.
#[derive(Resource, Default)]
pub struct Ends(pub Vec<(Entity, Result<(), InferError>)>);

/// Makes an app whose models and jobs share `budget` bytes. Every frame is 100 ms long.
pub fn app(budget: u64) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(budget),
            ..default()
        },
    ))
    .insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_millis(
        100,
    )))
    .init_resource::<Ends>();
    add_kind::<0>(&mut app, ModelPlugin::default());
    add_kind::<1>(&mut app, ModelPlugin::default());
    add_kind::<2>(&mut app, ModelPlugin::default());
    app.add_systems(Last, assert_within_budget);
    app
}

/// Makes such an app with a model of 4 MiB, kind 0, and a job of it that runs until the gate is open.
#[track_caller]
pub fn busy_app(budget: u64) -> (App, Gate, Entity) {
    let gate = Gate::closed();
    let mut app = app(budget);
    load::<0>(&mut app, &FakeModel::new("a").gate_steps(&gate));
    let running = job::<0>(&mut app, steps(1));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    (app, gate, running)
}

/// Set by tests that lower the budget below what is in use.
#[derive(Resource)]
pub struct MayExceedBudget;

fn assert_within_budget(memory: Res<ResourceManager>, may: Option<Res<MayExceedBudget>>) {
    let over = |device: &&DeviceMemory| device.budget.is_some_and(|budget| device.in_use > budget);
    let over = memory.devices().iter().find(over);
    assert!(over.is_none() || may.is_some(), "{over:?}");
}

/// Lowers the budget below what is in use.
pub fn lower_budget(app: &mut App, bytes: u64) {
    app.insert_resource(MayExceedBudget);
    app.world_mut()
        .resource_mut::<ResourceManager>()
        .set_budget(DeviceChoice::Cpu, bytes);
}

/// Asks for another model and waits until it is loaded in the place of the one before.
#[track_caller]
pub fn switch<const KIND: usize>(app: &mut App, model: &FakeModel) {
    ask::<KIND>(app, model);
    let id = model.source().id();
    run_until(app, "the other model", |world| {
        let manager = world.resource::<ModelManager<Fake<KIND>>>();
        manager.current_state.is_loaded() && manager.model_id.as_ref() == Some(&id)
    });
}

/// Adds one kind, with a recorder.
pub fn add_kind<const KIND: usize>(app: &mut App, plugin: ModelPlugin<Fake<KIND>>) {
    app.add_plugins((plugin, RecorderPlugin::<Fake<KIND>>::default()))
        .add_observer(
            |mut done: On<Inferred<Fake<KIND>>>, mut ends: ResMut<Ends>| {
                let entity = done.entity;
                ends.0.push((entity, done.take().map(drop)));
            },
        );
}

pub fn manager<const KIND: usize>(app: &mut App) -> Mut<'_, ModelManager<Fake<KIND>>> {
    app.world_mut().resource_mut()
}

pub fn state<const KIND: usize>(world: &World) -> ModelState {
    world.resource::<ModelManager<Fake<KIND>>>().current_state
}

/// Asks for a model.
pub fn ask<const KIND: usize>(app: &mut App, model: &FakeModel) {
    manager::<KIND>(app).load(model.source());
}

/// Asks for a model and waits until it is loaded.
#[track_caller]
pub fn load<const KIND: usize>(app: &mut App, model: &FakeModel) {
    ask::<KIND>(app, model);
    run_until(app, "the model", |world| state::<KIND>(world).is_loaded());
}

#[track_caller]
pub fn run_until_kind<const KIND: usize>(app: &mut App, expected: ModelState) {
    run_until(app, &format!("{expected:?} of {KIND}"), |world| {
        state::<KIND>(world) == expected
    });
}

/// A job of a number of steps that needs no memory.
pub fn steps(steps: u32) -> FakeRequest {
    FakeRequest {
        steps,
        memory: 0,
        ..default()
    }
}

pub fn job<const KIND: usize>(app: &mut App, request: FakeRequest) -> Entity {
    let job = Infer::<Fake<KIND>>::new(request);
    app.world_mut().spawn(job).id()
}

/// How a job has ended, if it has.
pub fn end(world: &World, job: Entity) -> Option<Result<(), InferError>> {
    let ends = &world.resource::<Ends>().0;
    let mut of_job = ends.iter().filter(|(entity, _)| *entity == job);
    let end = of_job.next().map(|(_, end)| end.clone());
    assert!(of_job.next().is_none(), "a job ends once");
    end
}

/// Waits until a job has ended.
#[track_caller]
pub fn ended(app: &mut App, job: Entity) -> Result<(), InferError> {
    run_until(app, "the job", |world| end(world, job).is_some());
    end(app.world(), job).expect("it has ended")
}

/// Why a job's model is gone, where that is what has ended the job: before it was handed over, or after.
pub fn model_error(end: &Result<(), InferError>) -> Option<&LoadError> {
    match end {
        Err(InferError::ModelFailed(source)) => Some(source),
        Err(InferError::Failed(source)) => source.downcast_ref(),
        _ => None,
    }
}

/// The reasons of all edges of a kind, in order.
pub fn reasons<const KIND: usize>(app: &App) -> Vec<TransitionReason> {
    let recorder = app.world().resource::<Recorder<Fake<KIND>>>();
    recorder.assert_consistent();
    let edges = recorder.edges().into_iter();
    edges.map(|(_, _, reason)| reason).collect()
}

/// Runs some frames in which nothing is expected.
pub fn frames(app: &mut App, count: usize) {
    for _ in 0..count {
        app.update();
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

pub fn in_use(app: &App) -> u64 {
    app.world().resource::<ResourceManager>().in_use()
}

/// Waits until somebody waits for room.
#[track_caller]
pub fn run_until_in_line(app: &mut App) {
    run_until(app, "the line", |world| {
        world.resource::<ResourceManager>().devices()[0].waiting > 0
    });
}

/// Waits until a load waits for room.
#[track_caller]
pub fn run_until_waiting<const KIND: usize>(app: &mut App) {
    run_until(app, "a load that waits", |world| {
        let memory = world.resource::<ResourceManager>();
        let progress = world.resource::<ModelManager<Fake<KIND>>>().progress;
        progress.phase == LoadPhase::Waiting && memory.devices()[0].waiting > 0
    });
}
