//! Steps wait where they cost frames, at most a quarter of a second, and not where waiting would not help. Reads rest
//! while a frame works.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{
    LoadSteps, MemoryFiles, ModelFiles, Plan, Steps,
    candle_nn::VarBuilder,
    prelude::*,
    test_kit::{Fake, FakeModel, Gate, run_until, run_until_state, wait_until},
};

/// With this target every frame is late.
const NONE: Duration = Duration::ZERO;

/// Counts its steps, which take no time.
struct Ticker;

type Count = Arc<AtomicU32>;

impl Pipeline for Ticker {
    type Config = ();
    type Settings = ();
    /// How many steps, and where they are counted.
    type Request = (u32, Count);
    type Partial = ();
    type Output = ();

    fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Ok(Plan::new(()))
    }

    async fn build((): (), _: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self)
    }

    async fn infer(&self, request: (u32, Count), steps: Steps<Self>) -> Result<(), InferError> {
        let (of, count) = request;
        for step in 1..=of {
            count.fetch_add(1, Ordering::SeqCst);
            steps.next(step, of, || ()).await;
        }
        Ok(())
    }
}

/// An app with a loaded model, guarded from its next frame on.
fn app(frame_target: Duration) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            frame_target: Some(frame_target),
            ..default()
        },
        ModelPlugin::<Ticker>::default(),
    ));
    let files = MemoryFiles::new::<String>([]);
    app.world_mut()
        .resource_mut::<ModelManager<Ticker>>()
        .load(ModelSource::files("ticker", Arc::new(files)));
    run_until_state::<Ticker>(&mut app, ModelState::Loaded);
    app
}

fn spawn(app: &mut App, steps: u32, count: &Count) -> Entity {
    let job = Infer::<Ticker>::new((steps, count.clone()));
    app.world_mut().spawn(job).id()
}

/// Runs frames until one closes the gate: late, and beside a step. While it is open there are many steps in no time.
fn close_gate(app: &mut App, count: &Count) {
    wait_until("the first steps", || count.load(Ordering::SeqCst) > 10);
    loop {
        app.update();
        // A busy machine may well keep a thread of low priority waiting for once.
        if (0..3).all(|_| steps_in_a_while(count) <= 2) {
            return;
        }
    }
}

fn steps_in_a_while(count: &Count) -> u32 {
    let before = count.load(Ordering::SeqCst);
    pass_time(Duration::from_millis(200));
    count.load(Ordering::SeqCst) - before
}

/// The apps of a process share the device's thread: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn steps_that_cost_frames_come_four_times_a_second_also_when_no_frame_follows() {
    let _alone = alone();
    let mut app = app(NONE);
    let count = Count::default();
    spawn(&mut app, u32::MAX, &count);
    close_gate(&mut app, &count);
    let taken = || count.load(Ordering::SeqCst);
    // One may be on its way through the gate.
    let (begun, before) = (Instant::now(), taken());
    wait_until("steps that nobody lets through", || taken() >= before + 4);
    let shortest = Duration::from_millis(2 * 230);
    assert!(begun.elapsed() >= shortest, "{:?}", begun.elapsed());
}

#[test]
fn jobs_of_one_step_are_held_back_like_the_steps_of_one_job() {
    let _alone = alone();
    let mut app = app(NONE);
    let (long, short) = (Count::default(), Count::default());
    let job = spawn(&mut app, u32::MAX, &long);
    close_gate(&mut app, &long);
    app.world_mut().despawn(job);
    for _ in 0..4 {
        spawn(&mut app, 1, &short);
    }
    let begun = Instant::now();
    wait_until("the short jobs", || short.load(Ordering::SeqCst) == 4);
    let shortest = Duration::from_millis(2 * 230);
    assert!(begun.elapsed() >= shortest, "{:?}", begun.elapsed());
}

#[test]
fn a_game_that_is_slow_by_itself_keeps_its_steps() {
    let _alone = alone();
    let mut app = app(NONE);
    let count = Count::default();
    let job = spawn(&mut app, 2_000, &count);
    close_gate(&mut app, &count);
    // With a pause before each they would take eight minutes.
    run_until(&mut app, "the end of the job", |world| {
        world.get::<Infer<Ticker>>(job).is_none()
    });
}

#[test]
fn a_game_with_time_to_spare_is_not_paused() {
    let _alone = alone();
    let mut app = app(Duration::from_secs(3600));
    let count = Count::default();
    let job = spawn(&mut app, 2_000, &count);
    run_until(&mut app, "the end of the job", |world| {
        world.get::<Infer<Ticker>>(job).is_none()
    });
}

/// How long a game waits between two frames, and readers rest in a frame at most.
const GAP: Duration = Duration::from_millis(20);

/// What the work of a frame does.
type Work = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

fn pass_time(time: Duration) {
    let begun = Instant::now();
    wait_until("time to pass", || begun.elapsed() >= time);
}

/// An app whose frames take 2 ms and more, with a load of which each read waits at the gate.
fn app_that_reads(frame_target: Option<Duration>, gate: &Gate) -> (App, Work) {
    let work = Work::default();
    let works = work.clone();
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            frame_target,
            ..default()
        },
        ModelPlugin::<Fake>::default(),
    ))
    .add_systems(Update, move || {
        pass_time(Duration::from_millis(2));
        let work = works.lock().expect("nobody panics").take();
        work.into_iter().for_each(|work| work());
    });
    let model = FakeModel::new("read").tensors(1_000, 4).gate_reads(gate);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until(&mut app, "the first read", |_| {
        pass_time(GAP);
        gate.waiting() == 1
    });
    (app, work)
}

#[test]
fn reads_rest_while_a_frame_works_where_the_game_has_said_a_target() {
    let _alone = alone();
    let gate = Gate::closed();
    let (mut app, work) = app_that_reads(Some(Duration::from_millis(16)), &gate);
    let mut looks = 0;
    while looks < 3 {
        pass_time(GAP);
        let (inside, begun) = (gate.clone(), Instant::now());
        let (tell, told) = mpsc::channel();
        let look = move || {
            let passed = inside.passed();
            inside.let_pass(1);
            wait_until("a read", || inside.passed() > passed);
            pass_time(Duration::from_millis(5));
            let waits = inside.waiting();
            // Later than that nobody has to rest any more.
            let _ = tell.send((begun.elapsed() < GAP).then_some(waits));
        };
        *work.lock().expect("nobody panics") = Some(Box::new(look));
        app.update();
        if let Some(waiting) = told.recv().expect("the frame has worked") {
            assert_eq!(waiting, 0, "a read began in the frame");
            looks += 1;
        }
        wait_until("the next read, between frames", || gate.waiting() == 1);
    }
    gate.open();
}

#[test]
fn reads_do_not_rest_without_a_target() {
    let _alone = alone();
    let gate = Gate::closed();
    let (mut app, work) = app_that_reads(None, &gate);
    let inside = gate.clone();
    let look = move || {
        let passed = inside.passed();
        inside.let_pass(1);
        wait_until("the next read, in the frame", || {
            inside.passed() > passed && inside.waiting() == 1
        });
    };
    *work.lock().expect("nobody panics") = Some(Box::new(look));
    app.update();
    gate.open();
}

#[test]
fn a_step_that_waits_is_not_kept_waiting_by_a_model_that_never_rests() {
    let _alone = alone();
    let (mut guarded, mut other) = (app(NONE), app(Duration::from_secs(3600)));
    let (held, busy) = (Count::default(), Count::default());
    spawn(&mut guarded, u32::MAX, &held);
    close_gate(&mut guarded, &held);
    spawn(&mut other, u32::MAX, &busy);
    let before = held.load(Ordering::SeqCst);
    wait_until("steps beside the other app's", || {
        held.load(Ordering::SeqCst) >= before + 4
    });
    assert!(busy.load(Ordering::SeqCst) > 100);
}
