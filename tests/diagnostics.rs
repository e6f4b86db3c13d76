//! What managers do, as Bevy diagnostics.

use bevy::{
    diagnostic::{DiagnosticPath, DiagnosticsStore},
    prelude::*,
};
use bevy_candle::{
    ModelDiagnosticsPlugin, ModelKinds, ModelRequest,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, run_until, run_until_state},
};

type Diagnostics = ModelDiagnosticsPlugin;

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, Diagnostics::default()))
        .add_plugins((
            ModelPlugin::<Fake>::default(),
            ModelPlugin::<Fake<1>>::default(),
        ));
    app
}

fn value(world: &World, path: &DiagnosticPath) -> Option<f64> {
    world.resource::<DiagnosticsStore>().get(path)?.value()
}

fn load(app: &mut App, model: &FakeModel) {
    let mut manager = app.world_mut().resource_mut::<ModelManager<Fake>>();
    manager.load(model.source());
}

#[test]
fn memory_and_progress_follow_a_load_and_an_unload() {
    let (mut app, gate) = (app(), Gate::closed());
    let model = FakeModel::new("sprites").gate_reads(&gate);
    load(&mut app, &model);
    run_until(&mut app, "a claim", |world| {
        value(world, &Diagnostics::memory::<Fake>()) == Some(model.bytes() as f64)
    });
    let progress = value(app.world(), &Diagnostics::load_progress::<Fake>());
    assert_eq!(progress, Some(0.0));
    gate.open();
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let progress = value(app.world(), &Diagnostics::load_progress::<Fake>());
    assert_eq!(progress, Some(100.0));
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    assert_eq!(
        value(app.world(), &Diagnostics::memory::<Fake>()),
        Some(0.0)
    );
    let progress = value(app.world(), &Diagnostics::load_progress::<Fake>());
    assert_eq!(progress, Some(0.0), "nothing is loaded any more");
    let other = value(app.world(), &Diagnostics::memory::<Fake<1>>());
    assert_eq!(other, Some(0.0), "each kind has its own");
}

#[test]
fn the_queue_counts_jobs_until_they_have_ended() {
    let (mut app, gate) = (app(), Gate::closed());
    load(&mut app, &FakeModel::new("sprites").gate_steps(&gate));
    let jobs: Vec<_> = (0..3)
        .map(|_| Infer::<Fake>::new(FakeRequest::default()))
        .collect();
    let jobs: Vec<_> = app.world_mut().spawn_batch(jobs).collect();
    run_until(&mut app, "a job at the gate", |_| gate.waiting() > 0);
    let queue = Diagnostics::queue::<Fake>();
    assert_eq!(value(app.world(), &queue), Some(3.0));
    app.world_mut().despawn(jobs[2]);
    app.update();
    assert_eq!(value(app.world(), &queue), Some(2.0), "one was withdrawn");
    assert_eq!(value(app.world(), &Diagnostics::job_time::<Fake>()), None);
    gate.open();
    run_until(&mut app, "the end of all", |world| {
        value(world, &queue) == Some(0.0)
    });
    let time = value(app.world(), &Diagnostics::job_time::<Fake>());
    assert!(time.is_some_and(|millis| millis > 0.0), "{time:?}");
    app.world_mut().remove_resource::<ModelManager<Fake>>();
    app.update();
    let same = value(app.world(), &Diagnostics::job_time::<Fake>());
    assert_eq!(same, time, "nothing is measured of a manager that is gone");
}

#[test]
fn kinds_are_read_and_asked_without_their_type() {
    let mut app = app();
    app.update();
    let kinds = app.world().resource::<ModelKinds>().clone();
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    assert_eq!(names, ["Fake", "Fake<1>"]);
    let kind = kinds.iter().next().expect("two were added");
    assert!(
        !kind.can(app.world(), ModelRequest::Load),
        "nothing to load again"
    );
    load(&mut app, &FakeModel::new("sprites"));
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    kind.ask(app.world_mut(), ModelRequest::Unload);
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    kind.ask(app.world_mut(), ModelRequest::Load);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let status = kind.status(app.world()).expect("the manager is there");
    assert_eq!(status.generation, 2);
}
