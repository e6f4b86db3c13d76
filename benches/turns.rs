//! How late a job is while another model of 1 GiB loads, builds, is evicted and is dropped on the same device.
//!
//! ```text
//! cargo bench --bench turns
//! ```
//!
//! A job of many small steps runs all the time. How late a step is, is the gap to the one before it beyond the median gap
//! while nothing else happens. The large model comes and goes several times; each time has its latest step, and
//! the median of these counts, since machines are noisy: `quiet` shows how late a step is while nothing else happens.
//! Prints `name value` lines in milliseconds, and fails where the median is above [`BAR`].

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Place, run_until, run_until_state},
};

/// What one step of the job works.
const WORK: Duration = Duration::from_millis(2);

/// How late a step may be.
const BAR: Duration = Duration::from_millis(20);

/// How often the large model comes and goes.
const CYCLES: usize = 9;

/// Room for the steady model, and for one of 1 GiB.
const BUDGET: u64 = 1100 << 20;

fn main() -> ExitCode {
    let mut app = app();
    let steady = FakeModel::new("steady");
    load::<0>(&mut app, &steady);
    let job = start(&mut app);
    let second = |app: &mut App| {
        let until = Instant::now() + Duration::from_secs(1);
        run_until(app, "a second", |_| Instant::now() > until);
    };
    let mut quiet = measure(&mut app, &steady, second);
    let usual = median(&mut quiet);
    let late = |gaps: &[Duration]| gaps.iter().max().map(|gap| gap.saturating_sub(usual));
    report(
        "quiet",
        &mut (0..CYCLES)
            .filter_map(|_| late(&measure(&mut app, &steady, second)))
            .collect::<Vec<_>>(),
    );
    let mut in_time = true;
    for (name, tensors, elements) in [
        ("64_mib", 16, 16 << 20),
        ("16_mib", 64, 4 << 20),
        ("4_mib", 256, 1 << 20),
        ("1_mib", 1024, 1 << 18),
    ] {
        let huge = ["huge", "also huge"].map(|id| FakeModel::new(id).tensors(tensors, elements));
        let mut worst: Vec<_> = (0..CYCLES)
            .filter_map(|_| late(&measure(&mut app, &steady, |app| come_and_go(app, &huge))))
            .collect();
        in_time &= report(&format!("late_{name}"), &mut worst) <= BAR;
    }
    app.world_mut().despawn(job);
    if in_time {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints the median and the worst, and returns the median.
fn report(name: &str, late: &mut [Duration]) -> Duration {
    let median = median(late);
    println!("{name}_ms {:.2}", ms(median));
    println!("{name}_worst_ms {:.2}", ms(late[late.len() - 1]));
    median
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(BUDGET),
            ..default()
        },
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>>::default(),
        ModelPlugin::<Fake<2>>::default(),
    ));
    app
}

/// Starts a job that does not end.
fn start(app: &mut App) -> Entity {
    let request = FakeRequest {
        steps: u32::MAX,
        work: WORK,
        ..default()
    };
    app.world_mut().spawn(Infer::<Fake>::new(request)).id()
}

/// The large model loads, is evicted by another one, and that is unloaded.
fn come_and_go(app: &mut App, huge: &[FakeModel; 2]) {
    load::<1>(app, &huge[0]);
    load::<2>(app, &huge[1]);
    assert_eq!(
        app.world()
            .resource::<ModelManager<Fake<1>>>()
            .current_state,
        ModelState::Idle,
        "there is room for one"
    );
    app.world_mut()
        .resource_mut::<ModelManager<Fake<2>>>()
        .unload();
    run_until_state::<Fake<2>>(app, ModelState::Idle);
}

/// Returns the gaps between the steps of the steady model meanwhile.
fn measure(app: &mut App, steady: &FakeModel, story: impl FnOnce(&mut App)) -> Vec<Duration> {
    let before = steady.log().len();
    story(app);
    let log = steady.log();
    let steps = log[before..]
        .iter()
        .filter(|event| event.place == Place::Infer);
    let times: Vec<Instant> = steps.map(|event| event.time).collect();
    assert!(times.len() > 20, "only {} steps were taken", times.len());
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn median(gaps: &mut [Duration]) -> Duration {
    gaps.sort_unstable();
    gaps[gaps.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn load<const KIND: usize>(app: &mut App, model: &FakeModel) {
    app.world_mut()
        .resource_mut::<ModelManager<Fake<KIND>>>()
        .load(model.source());
    run_until(app, "the model", |world| {
        let manager = world.resource::<ModelManager<Fake<KIND>>>();
        manager.current_state.is_loaded()
    });
}
