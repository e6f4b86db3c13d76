//! A load that ends early gives back every block of 4 KiB or more, exactly: wherever it is, however it ends, and
//! while somebody else holds the only thread of Bevy's pool.
//!
//! One test, in steps: the counters are the process's.

mod support {
    pub mod allocator;
    pub mod pool;
    pub mod stops;
}

use std::{
    thread,
    time::{Duration, Instant},
};

use bevy::{app::AppExit, prelude::*};
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place, run_until, run_until_state, wait_until},
};
use support::{
    allocator::{self, Held, held, large_bytes},
    pool::{Blocked, block_pool, one_thread},
    stops::stopping,
};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// The configuration, the header's length and the header; then the chunks of four tensors of 3 MiB, three each.
const READS: usize = 3 + 4 * 3;

/// Where a load is when it ends.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It was asked for, and no frame has passed.
    Asked,
    /// Its task is in the pool's queue, and has not begun.
    Queued,
    /// A reader stands before a read or after it, so many of these stops behind it.
    Reading(usize),
    /// The last byte is read, and the pipeline is half built.
    Building,
    WarmingUp,
    /// The model is ready, and nobody has looked at the result.
    Ready,
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Cancel,
    Supersede,
    DropWorld,
    AppExit,
}

fn stages() -> impl Iterator<Item = Stage> {
    let reading = (0..2 * READS).map(Stage::Reading);
    let first = [Stage::Asked, Stage::Queued].into_iter();
    first
        .chain(reading)
        .chain([Stage::Building, Stage::WarmingUp, Stage::Ready])
}

#[test]
fn every_block_is_back_wherever_a_load_ends() {
    warm_up();
    for blocked in [false, true] {
        for stage in stages() {
            for end in [End::Cancel, End::Supersede, End::DropWorld, End::AppExit] {
                ends(stage, end, blocked);
            }
        }
    }
}

/// One of each kind: what stays after these belongs to caches, and to nobody's model.
fn warm_up() {
    for blocked in [false, true] {
        for end in [End::Cancel, End::Supersede, End::DropWorld, End::AppExit] {
            for stage in [Stage::Reading(8), Stage::Ready] {
                end_early(stage, end, blocked);
            }
        }
    }
}

#[track_caller]
fn ends(stage: Stage, end: End, blocked: bool) {
    let before = held();
    end_early(stage, end, blocked);
    let what = format!("{stage:?}, {end:?}, blocked: {blocked}");
    assert_back(before, &what);
}

/// What is freed by threads that the app does not wait for may take a moment more.
#[track_caller]
fn assert_back(before: Held, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while held() != before && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(held(), before, "{what}");
}

/// One app with one load, held at a stage.
struct Scene {
    app: App,
    model: FakeModel,
    /// Another model, whose steps say that the device thread has gone on.
    steady: FakeModel,
    reads: Gate,
    building: Gate,
    warming: Gate,
    /// Held for as long as it takes to get the memory back, half a second included.
    pool: Option<Blocked>,
}

fn end_early(stage: Stage, end: End, blocked: bool) {
    let mut scene = Scene::new();
    scene.load_steady();
    let before = large_bytes();
    scene.reach(stage);
    match (blocked, &scene.pool) {
        (true, None) => scene.pool = Some(block_pool()),
        (false, Some(_)) => scene.pool = None,
        _ => {}
    }
    match end {
        End::Cancel => scene.cancel(before),
        End::Supersede => scene.supersede(before),
        End::DropWorld => scene.drop_world(before),
        End::AppExit => scene.exit(before),
    }
}

impl Scene {
    fn new() -> Self {
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins.set(one_thread()),
            CandlePlugin {
                memory_budget: Some(1 << 30),
                shutdown_timeout: Duration::from_secs(30),
                ..default()
            },
            ModelPlugin::<Fake>::default(),
            ModelPlugin::<Fake<1>>::default(),
        ));
        let (building, warming) = (Gate::closed(), Gate::closed());
        let model = FakeModel::new("model")
            .tensors(4, 3 << 18)
            .gate(Place::Build, &building)
            .gate(Place::WarmUp, &warming);
        Self {
            app,
            model,
            steady: FakeModel::new("steady").tensors(1, 1 << 18),
            reads: Gate::closed(),
            building,
            warming,
            pool: None,
        }
    }

    fn load_steady(&mut self) {
        self.app
            .world_mut()
            .resource_mut::<ModelManager<Fake<1>>>()
            .load(self.steady.source());
        run_until_state::<Fake<1>>(&mut self.app, ModelState::Loaded);
    }

    fn manager(&mut self) -> Mut<'_, ModelManager<Fake>> {
        self.app.world_mut().resource_mut()
    }

    fn reach(&mut self, stage: Stage) {
        let source = stopping(&self.model, &self.reads);
        self.manager().load(source);
        if matches!(stage, Stage::Asked) {
            return;
        }
        if matches!(stage, Stage::Queued) {
            self.pool = Some(block_pool());
            self.app.update();
            return;
        }
        self.app.update();
        if let Stage::Reading(stops) = stage {
            self.reads.let_pass(stops);
            wait_until("the readers", || {
                self.reads.passed() == stops && self.reads.waiting() > 0
            });
            return;
        }
        self.reads.open();
        wait_until("the build", || self.building.waiting() == 1);
        if matches!(stage, Stage::Building) {
            return;
        }
        self.building.open();
        wait_until("the warm-up", || self.warming.waiting() == 1);
        if matches!(stage, Stage::Ready) {
            self.warming.open();
            self.wait_for_device_thread();
        }
    }

    /// Waits without a frame until another model has taken steps: what was to be done before them is done.
    fn wait_for_device_thread(&mut self) {
        let request = FakeRequest {
            memory: 0,
            ..default()
        };
        self.app.world_mut().spawn(Infer::<Fake<1>>::new(request));
        let steps = || {
            let log = self.steady.log();
            log.iter()
                .filter(|event| event.place == Place::Infer)
                .count()
        };
        wait_until("steps of another model", || steps() == 3);
    }

    /// The weights are back when Idle shows, whoever holds the pool.
    fn cancel(mut self, before: i64) {
        self.manager().cancel();
        if self.reads.waiting() > 0 {
            self.app.update();
            assert_eq!(self.manager().current_state, ModelState::Loading);
        }
        self.reads.open();
        run_until_state::<Fake>(&mut self.app, ModelState::Idle);
        assert_eq!(large_bytes(), before, "Idle shows with memory alive");
    }

    fn supersede(mut self, before: i64) {
        let other = FakeModel::new("other");
        self.manager().load(other.source());
        self.reads.open();
        let is_other = |world: &mut World| {
            let id = &world.resource::<ModelManager<Fake>>().model_id;
            id.as_ref().is_some_and(|id| *id == "other")
        };
        run_until(&mut self.app, "the other model", is_other);
        // Only its task needs the pool.
        self.pool = None;
        run_until_state::<Fake>(&mut self.app, ModelState::Loaded);
        assert_eq!(large_bytes() - before, other.bytes() as i64);
        self.manager().unload();
        run_until_state::<Fake>(&mut self.app, ModelState::Idle);
        assert_eq!(large_bytes(), before);
    }

    fn drop_world(self, before: i64) {
        let opener = self.open_reads_soon();
        drop(self.app);
        wait_until("the weights of a dropped world", || large_bytes() < before);
        opener.join().expect("the gate is open");
    }

    fn exit(mut self, before: i64) {
        let opener = self.open_reads_soon();
        self.app.world_mut().write_message(AppExit::Success);
        self.app.update();
        assert_eq!(self.manager().current_state, ModelState::Idle);
        assert!(large_bytes() < before, "the other model is gone, too");
        opener.join().expect("the gate is open");
    }

    /// Lets the readers go on while the app ends: its end waits for them.
    fn open_reads_soon(&self) -> thread::JoinHandle<()> {
        let reads = self.reads.clone();
        thread::spawn(move || {
            thread::park_timeout(Duration::from_millis(1));
            reads.open();
        })
    }
}
