//! What idle managers add to a frame, and what a job costs beyond its steps.
//!
//! ```text
//! cargo bench --bench overhead
//! ```
//!
//! - `idle_us_1`, `idle_us_100`: microseconds that one manager, and a hundred, add to a frame in which they have
//!   nothing to do. Batches of frames with and without the plugin take turns; the median of the differences counts.
//! - `job_ratio_short`, `job_ratio`: 100 steps of 0.1 ms and of 10 ms, from the first to the last, as a job to the same
//!   steps in a loop on a thread of the same priority. The two take turns, in an app at 60 Hz; medians.
//! - `job_start_ms`: from the spawn to the first step, where the model had nothing to do.
//! - `job_end_frames`: the `PreUpdate`s that begin after the last step until `Inferred` is triggered, in the worst case.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    pub mod figures;
    pub mod game;
    pub mod settings;
}

use std::{
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{
    MemoryFiles,
    candle_nn::VarBuilder,
    prelude::*,
    test_kit::{Fake, run_until_state},
};
use support::{
    figures::{Figures, median, ms, quantile, us},
    game::{compute, paced_frame, rounds_per_ms},
    settings::settings,
};
use thread_priority::{ThreadPriority, set_current_thread_priority};

/// Frames in a batch, batches of each app, and apps: where one lies in memory is worth a microsecond.
const FRAMES: u32 = 500;
const BATCHES: usize = 11;
const APPS: usize = 11;

/// Steps of a job.
const STEPS: u32 = 100;

/// The priority of the device thread.
const DEVICE_PRIORITY: u8 = 25;

/// What ends so shortly before a `PreUpdate` may miss it.
const MARGIN: Duration = Duration::from_micros(500);

fn main() -> ExitCode {
    let mut figures = Figures::default();
    idle(&mut figures);
    jobs(&mut figures);
    figures.finish()
}

fn idle(figures: &mut Figures) {
    let (mut of_one, mut of_hundred) = (Vec::new(), Vec::new());
    for _ in 0..APPS {
        let mut without = warm(app());
        let mut one = warm(app_of(add_kind::<0>));
        let mut hundred = warm(app_of(add_hundred_kinds));
        for _ in 0..BATCHES {
            let nothing = time_frames(&mut without);
            of_one.push(time_frames(&mut one) - nothing);
            of_hundred.push(time_frames(&mut hundred) - nothing);
        }
    }
    figures.at_most("idle_us_1", median(&of_one), 1.0);
    figures.at_most("idle_us_100", median(&of_hundred), 20.0);
}

fn app_of(add_managers: fn(&mut App)) -> App {
    let mut app = app();
    app.add_plugins(settings());
    add_managers(&mut app);
    app
}

/// Runs an app for a while.
fn warm(mut app: App) -> App {
    app.finish();
    app.cleanup();
    time_frames(&mut app);
    app
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins(MinimalPlugins);
    app
}

fn add_kind<const KIND: usize>(app: &mut App) {
    app.add_plugins(ModelPlugin::<Fake<KIND>>::default());
}

fn add_hundred_kinds(app: &mut App) {
    macro_rules! add_ten {
        ($($tens:literal)*) => { $(
            add_kind::<{ $tens * 10 }>(app);
            add_kind::<{ $tens * 10 + 1 }>(app);
            add_kind::<{ $tens * 10 + 2 }>(app);
            add_kind::<{ $tens * 10 + 3 }>(app);
            add_kind::<{ $tens * 10 + 4 }>(app);
            add_kind::<{ $tens * 10 + 5 }>(app);
            add_kind::<{ $tens * 10 + 6 }>(app);
            add_kind::<{ $tens * 10 + 7 }>(app);
            add_kind::<{ $tens * 10 + 8 }>(app);
            add_kind::<{ $tens * 10 + 9 }>(app);
        )* };
    }
    add_ten!(0 1 2 3 4 5 6 7 8 9);
}

/// Returns the microseconds of a frame.
fn time_frames(app: &mut App) -> f64 {
    let begun = Instant::now();
    for _ in 0..FRAMES {
        app.update();
    }
    us(begun.elapsed()) / f64::from(FRAMES)
}

fn jobs(figures: &mut Figures) {
    let mut app = app();
    app.add_plugins((settings(), ModelPlugin::<Work>::default()))
        .init_resource::<Seen>()
        .add_systems(
            PreUpdate,
            (
                begin_pre_update.before(CandleSystems::Deliver),
                end_pre_update.after(CandleSystems::Transition),
            ),
        )
        .add_observer(note_end);
    let nothing = MemoryFiles::new::<String>([]);
    app.world_mut()
        .resource_mut::<ModelManager<Work>>()
        .load(ModelSource::files("work", Arc::new(nothing)));
    run_until_state::<Work>(&mut app, ModelState::Loaded);
    let rounds = rounds_per_ms();
    let mut ends = Vec::new();
    let short = ratio(&mut app, rounds / 10, 51, &mut ends);
    figures.at_most("job_ratio_short", short, 1.1);
    let long = ratio(&mut app, rounds * 10, 9, &mut ends);
    figures.at_most("job_ratio", long, 1.02);
    let starts: Vec<_> = ends.iter().map(|end| ms(end.start)).collect();
    figures.at_most("job_start_ms", median(&starts), 1.0);
    figures.print("job_start_p99_ms", quantile(&starts, 0.99));
    let frames = ends.iter().map(|end| end.pre_updates).max();
    figures.at_most("job_end_frames", frames.unwrap_or_default() as f64, 1.0);
}

/// The time of a job to that of the same steps in a loop; medians.
fn ratio(app: &mut App, rounds: u64, samples: usize, ends: &mut Vec<JobEnd>) -> f64 {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        direct.push(ms(run_directly(app, rounds)));
        let end = run_job(app, rounds);
        through.push(ms(end.work));
        ends.push(end);
    }
    median(&through) / median(&direct)
}

/// The steps alone, on a thread of the same priority beside the same app.
fn run_directly(app: &mut App, rounds: u64) -> Duration {
    let steps = thread::spawn(move || {
        let priority = DEVICE_PRIORITY.try_into().expect("it is below 100");
        set_current_thread_priority(ThreadPriority::Crossplatform(priority))
            .expect("lower is allowed");
        let begun = Instant::now();
        for _ in 0..STEPS {
            compute(rounds);
        }
        begun.elapsed()
    });
    while !steps.is_finished() {
        paced_frame(app);
    }
    steps.join().expect("the steps do not panic")
}

/// What is known of a job when it has ended.
struct JobEnd {
    /// From the spawn to the first step.
    start: Duration,
    /// From the first step to the last.
    work: Duration,
    /// The `PreUpdate`s that began after the last step, until its end was seen.
    pre_updates: usize,
}

fn run_job(app: &mut App, rounds: u64) -> JobEnd {
    *app.world_mut().resource_mut::<Seen>() = Seen::default();
    let spawned = Instant::now();
    app.world_mut().spawn(Infer::<Work>::new(Rounds(rounds)));
    loop {
        paced_frame(app);
        let seen = app.world().resource::<Seen>();
        if let Some(((first, last), inferred)) = seen.end {
            let after = |begun: &&Instant| **begun > last + MARGIN && **begun < inferred;
            return JobEnd {
                start: first - spawned,
                work: last - first,
                pre_updates: seen.pre_updates.iter().filter(after).count(),
            };
        }
    }
}

/// When the frames began, and when the job ended.
#[derive(Resource, Default)]
struct Seen {
    pre_updates: Vec<Instant>,
    in_pre_update: bool,
    end: Option<((Instant, Instant), Instant)>,
}

fn begin_pre_update(mut seen: ResMut<Seen>) {
    seen.pre_updates.push(Instant::now());
    seen.in_pre_update = true;
}

fn end_pre_update(mut seen: ResMut<Seen>) {
    seen.in_pre_update = false;
}

fn note_end(mut done: On<Inferred<Work>>, mut seen: ResMut<Seen>) {
    assert!(seen.in_pre_update, "a job ends in `PreUpdate`");
    let times = done.take().expect("the job does not fail");
    seen.end = Some((times, Instant::now()));
}

/// A model without weights whose steps compute.
struct Work;

/// The rounds of each step.
#[derive(Clone)]
struct Rounds(u64);

impl Pipeline for Work {
    type Config = ();
    type Settings = ();
    type Request = Rounds;
    type Partial = ();
    /// The beginning of the first step, and the end of the last.
    type Output = (Instant, Instant);

    fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Ok(Plan::new(()))
    }

    async fn build(_: (), _: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self)
    }

    async fn infer(
        &self,
        Rounds(rounds): Rounds,
        steps: Steps<Self>,
    ) -> Result<(Instant, Instant), InferError> {
        let first = Instant::now();
        let mut last = first;
        for step in 1..=STEPS {
            compute(rounds);
            last = Instant::now();
            steps.next(step, STEPS, || ()).await;
        }
        Ok((first, last))
    }
}
