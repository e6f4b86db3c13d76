//! How long after a cancel the last byte of a load is freed, and how far a cancelled job goes on.
//!
//! ```text
//! cargo bench --bench cancel
//! ```
//!
//! Loads of 1 GiB are cancelled at 200 points, spread evenly over the time that a load takes: first in an app whose
//! pools are free, then with all threads of `AsyncComputeTaskPool` blocked by somebody else from the cancel on. Counted is
//! from just before the frame that drops the load's handle to the end of the last large block, as the allocator sees
//! it; and that every block is back. `cancel_p50_ms`, `cancel_p99_ms` and `cancel_worst_ms` are of all points,
//! `cancel_<phase>_…` of the points in one phase of the load. `cancel_job_steps` is how many steps a running job
//! begins after its entity was despawned, at worst.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    pub mod figures;
    pub mod last_free;
    pub mod settings;
    pub mod stack;
    pub mod weights;
}

use std::{
    collections::BTreeMap,
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bevy::{
    prelude::*,
    tasks::{AsyncComputeTaskPool, Task},
};
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Place, run_until, run_until_state, wait_until},
};
use support::{
    figures::{Figures, median, ms, quantile, worst},
    last_free::{Watching, alive, last_free_after, start_clock},
    settings::settings,
    stack,
    weights::{Folder, Set},
};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Warms up for a few steps, so that there is such a phase.
type Stack = stack::Stack<16>;

/// Points at which a load is cancelled, in each mode.
const POINTS: u32 = 200;

/// Jobs that are cancelled.
const JOBS: u32 = 50;

/// The most a cancel may take, in the 99th percentile.
const BAR_MS: f64 = 10.0;

fn main() -> io::Result<ExitCode> {
    start_clock();
    let mut figures = Figures::default();
    let folder = Folder::make(Set::Many)?;
    let mut app = app();
    // The first load fills caches, and arenas of the allocator.
    let mut loads = [(); 4].map(|()| time_load(&mut app, &folder)).into_iter();
    loads.next();
    let usual = Duration::from_secs_f64(median(&loads.collect::<Vec<_>>()));
    figures.print("load_ms", ms(usual));
    loads_end(&mut figures, "cancel", &mut app, &folder, usual, || {
        Vec::<Blocked>::new()
    });
    let blocked = "cancel_pool_blocked";
    loads_end(&mut figures, blocked, &mut app, &folder, usual, block_pool);
    jobs_end(&mut figures);
    Ok(figures.finish())
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        settings(),
        ModelPlugin::<Stack>::default(),
        ModelPlugin::<Fake>::default(),
    ));
    app.finish();
    app.cleanup();
    app.update();
    app
}

fn manager(app: &mut App) -> Mut<'_, ModelManager<Stack>> {
    app.world_mut().resource_mut()
}

/// The seconds from the request to Loaded.
fn time_load(app: &mut App, folder: &Folder) -> f64 {
    let begun = Instant::now();
    manager(app).load(folder.path().to_path_buf());
    run_until_state::<Stack>(app, ModelState::Loaded);
    let seconds = begun.elapsed().as_secs_f64();
    manager(app).unload();
    run_until_state::<Stack>(app, ModelState::Idle);
    seconds
}

/// Cancels loads over the whole of their time.
fn loads_end<T>(
    figures: &mut Figures,
    name: &str,
    app: &mut App,
    folder: &Folder,
    usual: Duration,
    disturb: fn() -> Vec<T>,
) {
    let mut phases: BTreeMap<LoadPhase, Vec<f64>> = BTreeMap::new();
    let mut to_idle = Vec::new();
    for point in 0..POINTS {
        let after = usual.mul_f64((f64::from(point) + 0.5) / f64::from(POINTS));
        let cancelled = cancel_after(app, folder, after, disturb);
        phases
            .entry(cancelled.phase)
            .or_default()
            .push(cancelled.freed_ms);
        to_idle.push(cancelled.idle_ms);
    }
    for (phase, times) in &phases {
        let name = format!("{name}_{phase:?}").to_lowercase();
        println!("{name}_points {}", times.len());
        print_times(figures, &name, times);
    }
    let all: Vec<_> = phases.into_values().flatten().collect();
    figures.print(&format!("{name}_p50_ms"), median(&all));
    figures.at_most(&format!("{name}_p99_ms"), quantile(&all, 0.99), BAR_MS);
    figures.print(&format!("{name}_worst_ms"), worst(&all));
    figures.print(&format!("{name}_to_idle_p99_ms"), quantile(&to_idle, 0.99));
}

fn print_times(figures: &Figures, name: &str, times: &[f64]) {
    figures.print(&format!("{name}_p50_ms"), median(times));
    figures.print(&format!("{name}_p99_ms"), quantile(times, 0.99));
    figures.print(&format!("{name}_worst_ms"), worst(times));
}

/// How a load has ended.
struct Cancelled {
    phase: LoadPhase,
    /// From the drop of the handle to the last block.
    freed_ms: f64,
    /// From the drop of the handle to Idle.
    idle_ms: f64,
}

fn cancel_after<T>(
    app: &mut App,
    folder: &Folder,
    after: Duration,
    disturb: fn() -> Vec<T>,
) -> Cancelled {
    let before = alive();
    let begun = Instant::now();
    manager(app).load(folder.path().to_path_buf());
    app.update();
    while begun.elapsed() < after {
        thread::park_timeout(Duration::from_micros(100));
        app.update();
    }
    let disturbed = disturb();
    let phase = manager(app).progress.phase;
    // Where the load was faster than usual this unloads it, which is as good a point as any.
    manager(app).unload();
    let dropped = Instant::now();
    app.update();
    wait_until("the last block", || alive() <= before);
    let freed_ms = ms(last_free_after(dropped));
    drop(disturbed);
    run_until_state::<Stack>(app, ModelState::Idle);
    let idle_ms = ms(dropped.elapsed());
    Cancelled {
        phase,
        freed_ms,
        idle_ms,
    }
}

/// Holds all threads of the pool until it is dropped.
struct Blocked {
    _open: std::sync::mpsc::Sender<()>,
    task: Option<Task<()>>,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

fn block_pool() -> Vec<Blocked> {
    let pool = AsyncComputeTaskPool::get();
    let block = |_| {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let task = pool.spawn(async move {
            let _ = tell.send(());
            let _ = gate.recv();
        });
        told.recv().expect("the pool runs it");
        Blocked {
            _open: open,
            task: Some(task),
        }
    };
    (0..pool.thread_num()).map(block).collect()
}

fn jobs_end(figures: &mut Figures) {
    let mut app = app();
    let model = FakeModel::new("steps");
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let steps = || {
        model
            .log()
            .iter()
            .filter(|seen| seen.place == Place::Infer)
            .map(|seen| seen.time)
            .collect::<Vec<_>>()
    };
    let mut late = Vec::new();
    for job in 0..JOBS {
        let request = FakeRequest {
            steps: u32::MAX,
            work: Duration::from_millis(2),
            ..default()
        };
        let before = steps().len();
        let entity = app.world_mut().spawn(Infer::<Fake>::new(request)).id();
        run_until(&mut app, "some steps", |_| steps().len() > before + 3);
        // Somewhere in a step.
        thread::sleep(Duration::from_micros(u64::from(job) * 37));
        let despawned = Instant::now();
        app.world_mut().despawn(entity);
        let until = despawned + Duration::from_millis(20);
        run_until(&mut app, "the end", |_| Instant::now() > until);
        late.push(steps().iter().filter(|step| **step > despawned).count() as f64);
    }
    figures.at_most("cancel_job_steps", worst(&late), 1.0);
}
