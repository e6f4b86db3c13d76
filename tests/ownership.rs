//! Models are built, used and dropped on the device thread, and nowhere else; the main thread frees
//! nothing that a loader allocated.
//!
//! One test, in steps: the counters are the process's.

#[path = "support/allocator.rs"]
mod allocator;

use std::sync::Arc;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{
        Fake, FakeEvent, FakeModel, FakeRequest, Gate, Place, run_until, run_until_state,
        wait_until,
    },
};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()));
    app.update();
    app
}

fn load(app: &mut App, model: &FakeModel) {
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
}

/// Everything the model's pipelines did was done by the one device thread, and each was dropped.
#[track_caller]
fn assert_owned(model: &FakeModel, expected: &[Place]) {
    let log = model.log();
    let places: Vec<_> = log.iter().map(|event| event.place).collect();
    assert_eq!(places, expected);
    assert!(log.iter().all(|event| event.on_device_thread), "{log:?}");
    let threads: std::collections::HashSet<_> =
        log.iter().map(|event: &FakeEvent| event.thread).collect();
    assert_eq!(threads.len(), 1, "one thread owns the device");
}

/// Waits until the large blocks are back at `before`, without a frame.
#[track_caller]
fn assert_bytes_return(before: i64, what: &str) {
    wait_until(what, || allocator::large_bytes() <= before);
}

#[test]
fn models_live_and_die_on_the_device_thread() {
    // What a backtrace leaves in caches is not a leak.
    std::panic::set_hook(Box::new(|_| {}));
    allocator::watch_this_thread();
    let mut app = app();
    load(&mut app, &FakeModel::new("warm up"));
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(&mut app, ModelState::Idle);

    unloaded_after_a_job(&mut app);
    cancelled_after_the_last_byte(&mut app);
    too_late_a_result(&mut app);
    a_despawned_job(&mut app);
    a_failed_build(&mut app);
    a_panicking_build(&mut app);
    a_cancel_while_reading(&mut app);
    replaced_files_in_memory(&mut app);
    drop(app);
    a_dropped_world();
    assert_eq!(
        allocator::freed_by_watched_threads(),
        0,
        "the main thread freed large blocks"
    );
}

fn unloaded_after_a_job(app: &mut App) {
    let before = allocator::large_bytes();
    let model = FakeModel::new("a");
    load(app, &model);
    run_until_state::<Fake>(app, ModelState::Loaded);
    let held = allocator::large_bytes() - before;
    assert!(
        held >= model.bytes() as i64,
        "the counter sees the weights: {held}"
    );
    let job = app
        .world_mut()
        .spawn(Infer::<Fake>::new(FakeRequest {
            steps: 2,
            ..default()
        }))
        .id();
    run_until(app, "the job", |world| {
        world.get::<Infer<Fake>>(job).is_none()
    });
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(app, ModelState::Idle);
    assert_eq!(
        allocator::large_bytes(),
        before,
        "Idle shows when the memory is back"
    );
    assert_owned(
        &model,
        &[
            Place::Build,
            Place::WarmUp,
            Place::Infer,
            Place::Infer,
            Place::Drop,
        ],
    );
}

fn cancelled_after_the_last_byte(app: &mut App) {
    let before = allocator::large_bytes();
    let gate = Gate::closed();
    let model = FakeModel::new("b").gate(Place::Build, &gate);
    load(app, &model);
    run_until(app, "the build", |_| gate.waiting() == 1);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .cancel();
    run_until_state::<Fake>(app, ModelState::Idle);
    assert_eq!(allocator::large_bytes(), before);
    assert_owned(&model, &[Place::Build, Place::Drop]);
}

/// The model is ready, but the game has changed its mind before it looked.
fn too_late_a_result(app: &mut App) {
    let before = allocator::large_bytes();
    let gate = Gate::closed();
    let model = FakeModel::new("c").gate(Place::WarmUp, &gate);
    load(app, &model);
    run_until(app, "the warm-up", |_| gate.waiting() == 1);
    gate.open();
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(FakeModel::new("d").source());
    run_until_state::<Fake>(app, ModelState::Idle);
    assert_eq!(allocator::large_bytes(), before);
    assert_owned(&model, &[Place::Build, Place::WarmUp, Place::Drop]);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    for _ in 0..5 {
        app.update();
    }
    run_until_state::<Fake>(app, ModelState::Idle);
}

fn a_despawned_job(app: &mut App) {
    let before = allocator::large_bytes();
    let gate = Gate::closed();
    let model = FakeModel::new("e").gate_steps(&gate);
    load(app, &model);
    run_until_state::<Fake>(app, ModelState::Loaded);
    let loaded = allocator::large_bytes();
    let job = app
        .world_mut()
        .spawn(Infer::<Fake>::new(FakeRequest::default()))
        .id();
    run_until(app, "the first step", |_| gate.waiting() == 1);
    assert!(
        allocator::large_bytes() > loaded,
        "the job has memory of its own"
    );
    app.world_mut().despawn(job);
    assert_bytes_return(loaded, "the bytes of a despawned job");
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(app, ModelState::Idle);
    assert_eq!(allocator::large_bytes(), before);
    assert_owned(
        &model,
        &[Place::Build, Place::WarmUp, Place::Infer, Place::Drop],
    );
}

/// A model's files in memory, and one that nobody reads.
struct InMemory {
    files: Arc<dyn ModelFiles>,
    _more: Vec<u8>,
}

impl ModelFiles for InMemory {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        self.files.read_at(name, offset, buf)
    }
}

fn replaced_files_in_memory(app: &mut App) {
    let before = allocator::large_bytes();
    let model = FakeModel::new("i");
    let files = InMemory {
        files: model.files(),
        _more: vec![1; 1 << 20],
    };
    let source = ModelSource::files("in memory", Arc::new(files));
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(source);
    run_until_state::<Fake>(app, ModelState::Loaded);
    load(app, &FakeModel::new("j"));
    run_until_state::<Fake>(app, ModelState::Idle);
    run_until_state::<Fake>(app, ModelState::Loaded);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(app, ModelState::Idle);
    assert_bytes_return(before, "the files of a model that was replaced");
}

fn a_failed_build(app: &mut App) {
    let before = allocator::large_bytes();
    let model = FakeModel::new("f").fail_in(Place::Build);
    load(app, &model);
    run_until_state::<Fake>(app, ModelState::Failed);
    assert_eq!(
        allocator::large_bytes(),
        before,
        "Failed, too, shows when the memory is back"
    );
    assert_owned(&model, &[Place::Build, Place::Drop]);
}

fn a_panicking_build(app: &mut App) {
    let before = allocator::large_bytes();
    let model = FakeModel::new("g").panic_in(Place::Build);
    load(app, &model);
    run_until_state::<Fake>(app, ModelState::Loading);
    run_until_state::<Fake>(app, ModelState::Failed);
    assert_eq!(allocator::large_bytes(), before);
    assert_owned(&model, &[Place::Build, Place::Drop]);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(app, ModelState::Idle);
}

fn a_cancel_while_reading(app: &mut App) {
    let before = allocator::large_bytes();
    for passed in 0..6 {
        let gate = Gate::closed();
        let model = FakeModel::new("h").tensors(3, 1 << 20).gate_reads(&gate);
        load(app, &model);
        gate.let_pass(passed);
        run_until(app, "a reader at the gate", |_| gate.waiting() > 0);
        app.world_mut()
            .resource_mut::<ModelManager<Fake>>()
            .cancel();
        app.update();
        app.update();
        let manager = app.world().resource::<ModelManager<Fake>>();
        assert_eq!(
            manager.current_state,
            ModelState::Loading,
            "a reader still holds a buffer"
        );
        gate.open();
        run_until_state::<Fake>(app, ModelState::Idle);
        assert_eq!(
            allocator::large_bytes(),
            before,
            "{passed} chunks were read"
        );
        assert_owned_or_never_built(&model);
    }
}

fn assert_owned_or_never_built(model: &FakeModel) {
    assert!(model.log().is_empty(), "a cancelled load is not built");
}

fn a_dropped_world() {
    let before = allocator::large_bytes();
    let (reads, steps) = (Gate::closed(), Gate::closed());
    let (running, reading) = (
        FakeModel::new("i").gate_steps(&steps),
        FakeModel::new("j").gate_reads(&reads),
    );
    let mut app = app();
    app.add_plugins(ModelPlugin::<Fake<1>>::default());
    load(&mut app, &running);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    app.world_mut()
        .spawn(Infer::<Fake>::new(FakeRequest::default()));
    app.world_mut()
        .resource_mut::<ModelManager<Fake<1>>>()
        .load(reading.source());
    run_until(&mut app, "a step and a reader", |_| {
        steps.waiting() == 1 && reads.waiting() == 1
    });
    let opener = std::thread::spawn(move || reads.open());
    drop(app);
    opener.join().expect("the gate is open");
    assert_bytes_return(before, "the bytes of a dropped world");
    assert_owned(
        &running,
        &[Place::Build, Place::WarmUp, Place::Infer, Place::Drop],
    );
    // The gate opens while the world is torn down, so the model may even get as far as being built.
    let log = reading.log();
    let count = |place| log.iter().filter(|event| event.place == place).count();
    assert_eq!(count(Place::Build), count(Place::Drop));
    assert!(log.iter().all(|event| event.on_device_thread), "{log:?}");
}
