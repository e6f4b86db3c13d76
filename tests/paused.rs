//! Apps that do not run all the time: one that sleeps is woken by results, and for one that is paused nothing piles up.

mod support {
    pub mod allocator;
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use bevy::{app::AppExit, prelude::*};
use bevy_candle::{
    candle_nn::VarBuilder,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, run_until_state, wait_until},
};
use support::allocator::{self, all_bytes};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// One test: the counters are the process's.
#[test]
fn apps_that_sleep_or_are_paused() {
    results_wake_an_app_that_sleeps();
    nothing_piles_up_while_an_app_is_paused();
}

/// An app that runs a frame only when it is woken, as winit's does in its reactive mode.
fn results_wake_an_app_that_sleeps() {
    let (sender, woken) = mpsc::channel();
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()))
        .set_runner(move |app| sleep_between_frames(app, &woken))
        .add_systems(
            Startup,
            move |wake_up: Res<WakeUp>, mut manager: ResMut<ModelManager<Fake>>| {
                let sender = sender.clone();
                wake_up.set(move || _ = sender.send(()));
                manager.load(FakeModel::new("a").source());
            },
        )
        .add_systems(
            OnEnter(ModelState::Loaded.of::<Fake>()),
            |mut commands: Commands| _ = commands.spawn(Infer::<Fake>::new(FakeRequest::default())),
        )
        .add_observer(
            |_: On<Inferred<Fake>>, mut manager: ResMut<ModelManager<Fake>>| manager.unload(),
        )
        .add_systems(
            OnExit(ModelState::Unloading.of::<Fake>()),
            |mut exit: MessageWriter<AppExit>| _ = exit.write(AppExit::Success),
        );
    assert_eq!(app.run(), AppExit::Success);
}

fn sleep_between_frames(mut app: App, woken: &mpsc::Receiver<()>) -> AppExit {
    app.finish();
    app.cleanup();
    loop {
        app.update();
        if let Some(exit) = app.should_exit() {
            return exit;
        }
        match woken.recv_timeout(Duration::from_secs(30)) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("nobody wakes the app"),
            Err(RecvTimeoutError::Disconnected) => panic!("nobody can wake the app"),
        }
    }
}

/// Previews of 64 KiB overwrite each other, and each job that ends leaves one event.
fn nothing_piles_up_while_an_app_is_paused() {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Ticker>::default()));
    let files = Arc::new(MemoryFiles::default());
    app.world_mut()
        .resource_mut::<ModelManager<Ticker>>()
        .load(ModelSource::files("ticker", files));
    run_until_state::<Ticker>(&mut app, ModelState::Loaded);
    let (ticks, counter) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for ticks in [&ticks, &counter] {
        let job = Infer::<Ticker>::new(ticks.clone()).previews_every(1);
        app.world_mut().spawn(job);
    }
    let passed = |count| ticks.load(Ordering::SeqCst) >= count;
    wait_until("the first previews", || passed(100));
    let before = all_bytes();
    wait_until("many more previews", || passed(100_000));
    let grown = all_bytes() - before;
    assert!(grown < 3 * PREVIEW as i64, "{grown} bytes have piled up");
}

const PREVIEW: usize = 64 << 10;

/// Counts steps without an end.
struct Ticker;

impl Pipeline for Ticker {
    type Config = ();
    type Settings = ();
    type Request = Arc<AtomicU32>;
    type Partial = Vec<u8>;
    type Output = ();

    fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Ok(Plan::new(()))
    }

    async fn build((): (), _: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self)
    }

    async fn infer(&self, ticks: Self::Request, steps: Steps<Self>) -> Result<(), InferError> {
        loop {
            ticks.fetch_add(1, Ordering::SeqCst);
            steps.next(1, u32::MAX, || vec![0; PREVIEW]).await;
        }
    }
}
