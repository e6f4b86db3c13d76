//! How long one denoising step takes on the CPU: `tools/compare_diffusers.py` runs it beside diffusers.
//!
//! ```text
//! cargo bench --bench step -- FOLDER [BATCH] [STEPS] [THREADS]
//! ```
//!
//! Without a folder it is the model of sprites. After a first job that does not count, three jobs of so many steps run
//! through the manager, sampler included. `step_ms` is the median of their times, for each step.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    pub mod figures;
    pub mod settings;
}

use std::{
    env,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{prelude::*, test_kit::run_until_state};
use support::{
    figures::{Figures, median, ms},
    settings::device,
};

/// Jobs that count.
const JOBS: usize = 3;

/// How often the game looks: it is not to take time from the device.
const FRAME: Duration = Duration::from_millis(1);

/// The end of a job.
#[derive(Resource, Default)]
struct Ended(Option<Result<DdpmOutput, InferError>>);

fn main() -> ExitCode {
    // cargo adds options of its own.
    let mut options = env::args()
        .skip(1)
        .filter(|option| !option.starts_with("--"));
    let folder = options.next();
    let folder = folder.unwrap_or_else(|| "models/sprites".into());
    let mut number = |usual| {
        options
            .next()
            .map_or(usual, |number| number.parse().expect("a number"))
    };
    let (batch, steps, threads) = (number(1), number(20), number(2));
    let mut app = app(threads);
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(folder.as_str());
    run_until_state::<DdpmPipeline>(&mut app, ModelState::Loaded);
    // The sprites have classes, other folders have none.
    let class = folder.ends_with("sprites").then_some(3);
    let request = DdpmRequest {
        class,
        batch,
        steps,
        ..default()
    };
    let times = [(); JOBS + 1].map(|()| time(&mut app, &request));
    let each = times[1..].iter().map(|time| ms(*time) / f64::from(steps));
    let figures = Figures::default();
    figures.print("step_ms", median(&each.collect::<Vec<_>>()));
    figures.finish()
}

fn app(threads: u32) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            device: device(),
            threads: (threads as usize).try_into().ok(),
            ..default()
        },
        ModelPlugin::<DdpmPipeline>::default(),
    ))
    .init_resource::<Ended>()
    .add_observer(
        |mut done: On<Inferred<DdpmPipeline>>, mut ended: ResMut<Ended>| {
            ended.0 = Some(done.take());
        },
    );
    app
}

/// Returns how long a job takes.
fn time(app: &mut App, request: &DdpmRequest) -> Duration {
    let start = Instant::now();
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request.clone()));
    loop {
        app.update();
        if let Some(end) = app.world_mut().resource_mut::<Ended>().0.take() {
            end.expect("pictures");
            return start.elapsed();
        }
        thread::sleep(FRAME);
    }
}
