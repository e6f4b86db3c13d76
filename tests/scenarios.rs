//! The specification of the model manager, scenario by scenario, on a headless app with a real model.

#[path = "support/allocator.rs"]
mod allocator;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bevy::{app::AppExit, prelude::*};
use bevy_candle::{
    MemoryFiles,
    prelude::*,
    test_kit::{Gate, GatedFiles, Recorder, RecorderPlugin, run_until, run_until_state},
};

use ModelState::{Idle, Loaded, Loading, Unloading};
use TransitionReason as R;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// The trained model that comes with the crate, below the asset folder.
const SPRITES: &str = "models/sprites";

/// Its weights in memory, as f32.
const SPRITES_BYTES: u64 = 7_231_504;

/// The allocator counts for the whole process, so the scenarios run one after another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    allocator::watch_this_thread();
    alone
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        ModelPlugin::<DdpmPipeline>::default(),
        RecorderPlugin::<DdpmPipeline>::default(),
    ));
    app.finish();
    app.update();
    app
}

fn manager(app: &mut App) -> Mut<'_, ModelManager<DdpmPipeline>> {
    app.world_mut().resource_mut()
}

fn load(app: &mut App) {
    manager(app).load(SPRITES);
    run_until_state::<DdpmPipeline>(app, Loaded);
}

/// The property, the Bevy state and the messages agree, and took these edges.
#[track_caller]
fn assert_story(app: &App, edges: &[(ModelState, ModelState, R)]) {
    let recorder = app.world().resource::<Recorder<DdpmPipeline>>();
    recorder.assert_consistent();
    assert_eq!(recorder.edges(), edges);
}

/// A model whose reads a test can stop: the shipped files, behind a gate.
fn gated(gate: &Gate) -> ModelSource {
    static FILES: OnceLock<Arc<MemoryFiles>> = OnceLock::new();
    let files = FILES.get_or_init(|| Arc::new(shipped_files())).clone();
    ModelSource::files("gated sprites", Arc::new(GatedFiles::new(files, gate)))
}

fn shipped_files() -> MemoryFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("assets")
        .join(SPRITES);
    let names = [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ];
    MemoryFiles::new(names.map(|name| {
        (
            name,
            std::fs::read(folder.join(name)).expect("the shipped model"),
        )
    }))
}

#[test]
fn load_from_idle_goes_to_loading() {
    let _alone = alone();
    let mut app = app();
    assert_eq!(manager(&mut app).current_state, Idle);
    manager(&mut app).load(SPRITES);
    assert_eq!(
        manager(&mut app).current_state,
        Idle,
        "a request only writes down what is wanted"
    );
    app.update();
    assert_eq!(manager(&mut app).current_state, Loading);
    assert!(
        manager(&mut app)
            .model_id
            .as_ref()
            .is_some_and(|id| id == SPRITES)
    );
    assert_story(&app, &[(Idle, Loading, R::LoadRequested)]);
}

#[test]
fn load_completes_goes_to_loaded() {
    let _alone = alone();
    let mut app = app();
    load(&mut app);
    let manager = manager(&mut app);
    assert_eq!(manager.memory, SPRITES_BYTES);
    assert_eq!(manager.progress.phase, LoadPhase::Done);
    assert_eq!(manager.progress.done, manager.progress.total);
    assert_eq!(
        manager.progress.total,
        SPRITES_BYTES / 2,
        "the file is f16, memory is f32"
    );
    assert_story(
        &app,
        &[
            (Idle, Loading, R::LoadRequested),
            (Loading, Loaded, R::LoadCompleted),
        ],
    );
}

#[test]
fn unload_goes_to_unloading_then_idle() {
    let _alone = alone();
    let mut app = app();
    load(&mut app);
    manager(&mut app).unload();
    app.update();
    assert_eq!(manager(&mut app).current_state, Unloading);
    run_until_state::<DdpmPipeline>(&mut app, Idle);
    assert_story(
        &app,
        &[
            (Idle, Loading, R::LoadRequested),
            (Loading, Loaded, R::LoadCompleted),
            (Loaded, Unloading, R::UnloadRequested),
            (Unloading, Idle, R::UnloadCompleted),
        ],
    );
}

#[test]
fn after_an_unload_the_memory_is_back() {
    let _alone = alone();
    let mut app = app();
    // What a first cycle leaves in caches is not the model's.
    load(&mut app);
    manager(&mut app).unload();
    run_until_state::<DdpmPipeline>(&mut app, Idle);
    let before = allocator::large_bytes();
    load(&mut app);
    assert!(
        allocator::large_bytes() - before > 5_000_000,
        "the counter sees the weights"
    );
    assert_eq!(
        app.world().resource::<ResourceManager>().in_use(),
        SPRITES_BYTES
    );
    manager(&mut app).unload();
    run_until_state::<DdpmPipeline>(&mut app, Idle);
    assert_eq!(allocator::large_bytes(), before);
    assert_eq!(
        allocator::freed_by_watched_threads(),
        0,
        "the main thread frees no weights"
    );
    assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    let manager = manager(&mut app);
    assert_eq!(
        (manager.memory, manager.sample_size, &manager.model_id),
        (0, None, &None)
    );
    let report = manager.last_release.expect("an unload reports");
    assert_eq!(report.claimed, SPRITES_BYTES);
    let counts = cfg!(all(target_os = "linux", target_env = "gnu"));
    assert_eq!(
        report.freed.is_some(),
        counts,
        "glibc counts, others do not"
    );
    assert!(
        report.freed.is_none_or(|freed| freed >= SPRITES_BYTES),
        "{report:?}"
    );
}

#[test]
fn a_new_model_requested_during_a_load_cancels_it_cleanly() {
    let _alone = alone();
    let mut app = app();
    let gate = Gate::closed();
    manager(&mut app).load(gated(&gate));
    // Past the configuration and the headers, into the weights.
    gate.let_pass(8);
    run_until(&mut app, "a reader at the gate", |world| {
        gate.waiting() > 0 && world.resource::<ModelManager<DdpmPipeline>>().progress.done > 0
    });
    manager(&mut app).load(SPRITES);
    for _ in 0..5 {
        app.update();
    }
    assert_eq!(
        manager(&mut app).current_state,
        Loading,
        "the first load's memory is not back yet"
    );
    gate.open();
    run_until_state::<DdpmPipeline>(&mut app, Loaded);
    assert!(
        manager(&mut app)
            .model_id
            .as_ref()
            .is_some_and(|id| id == SPRITES)
    );
    assert_eq!(
        app.world().resource::<ResourceManager>().in_use(),
        SPRITES_BYTES,
        "one model, not two"
    );
    assert_story(
        &app,
        &[
            (Idle, Loading, R::LoadRequested),
            (Loading, Idle, R::Superseded),
            (Idle, Loading, R::LoadRequested),
            (Loading, Loaded, R::LoadCompleted),
        ],
    );
}

#[test]
fn after_a_cancel_everything_allocated_is_freed() {
    let _alone = alone();
    let mut app = app();
    load(&mut app);
    manager(&mut app).unload();
    run_until_state::<DdpmPipeline>(&mut app, Idle);
    let _files = gated(&Gate::closed());
    let before = allocator::large_bytes();
    for passed in [0, 3, 8, 20, 60] {
        let gate = Gate::closed();
        manager(&mut app).load(gated(&gate));
        gate.let_pass(passed);
        run_until(&mut app, "a reader at the gate", |_| gate.waiting() > 0);
        manager(&mut app).cancel();
        app.update();
        gate.open();
        run_until_state::<DdpmPipeline>(&mut app, Idle);
        assert_eq!(
            allocator::large_bytes(),
            before,
            "cancelled after {passed} reads"
        );
        assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    }
}

#[test]
fn current_state_and_sample_size_are_properties() {
    let _alone = alone();
    let mut app = app();
    assert_eq!(manager(&mut app).sample_size, None);
    load(&mut app);
    let manager = manager(&mut app);
    assert_eq!(manager.current_state, Loaded);
    assert_eq!(manager.sample_size, Some(UVec2::new(32, 32)));
}

#[test]
fn on_app_exit_a_running_load_ends() {
    let _alone = alone();
    let mut app = app();
    let gate = Gate::closed();
    manager(&mut app).load(gated(&gate));
    run_until(&mut app, "a reader at the gate", |_| gate.waiting() > 0);
    // The reader comes back from its read when the app is ending already.
    let open = gate.clone();
    app.add_systems(
        CandleShutdown,
        (move || open.open()).before(CandleSystems::Release),
    );
    exit(&mut app);
    assert_eq!(manager(&mut app).current_state, Idle);
    assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    assert_story(
        &app,
        &[
            (Idle, Loading, R::LoadRequested),
            (Loading, Idle, R::Shutdown),
        ],
    );
}

#[test]
fn on_app_exit_a_running_job_ends() {
    let _alone = alone();
    let mut app = app();
    load(&mut app);
    let request = DdpmRequest {
        class: Some(0),
        steps: 1000,
        ..default()
    };
    app.world_mut().spawn(Infer::<DdpmPipeline>::new(request));
    app.update();
    exit(&mut app);
    assert_eq!(manager(&mut app).current_state, Idle);
    assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    assert_story(
        &app,
        &[
            (Idle, Loading, R::LoadRequested),
            (Loading, Loaded, R::LoadCompleted),
            (Loaded, Unloading, R::Shutdown),
            (Unloading, Idle, R::Shutdown),
        ],
    );
}

/// Ends the app from its very last schedule.
fn exit(app: &mut App) {
    app.add_systems(Last, |mut exit: MessageWriter<AppExit>| {
        exit.write(AppExit::Success);
    });
    app.update();
    assert!(app.should_exit().is_some());
}
