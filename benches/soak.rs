//! What is left after a thousand lives of a model.
//!
//! ```text
//! cargo bench --bench soak
//! ```
//!
//! Each cycle loads a model, runs a job and unloads; every third is cancelled on the way, at a place that a fixed
//! sequence chooses. Prints the growth from cycle 100 to cycle 1,000, as `name value` lines: resident memory, bytes
//! on the heap, open files and threads. Resident memory is the median of the twenty cycles up to there: how much of what
//! is free the C library keeps at one moment is chance. Fails where one is above its bar.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "../tests/support/allocator.rs"]
mod allocator;

use std::{fs, process::ExitCode};

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, run_until, run_until_state, wait_until},
};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

const CYCLES: usize = 1_000;

/// What comes before has filled the caches.
const WARM: usize = 100;

/// Cycles of which the resident memory is the median.
const LOOKED_AT: usize = 20;

/// Resident mebibytes, bytes on the heap, open files, threads.
const BARS: [i64; 4] = [1, 4096, 0, 0];

const NAMES: [&str; 4] = [
    "soak_resident_growth_mib",
    "soak_heap_growth_bytes",
    "soak_fd_growth",
    "soak_thread_growth",
];

fn main() -> ExitCode {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<DdpmPipeline>::default(),
    ));
    app.finish();
    app.cleanup();
    let mut chance = Chance(0x5eed);
    let mut resident = Vec::with_capacity(CYCLES);
    let mut warm = None;
    for cycle in 1..=CYCLES {
        fake_life(&mut app, &mut chance);
        folder_life(&mut app, &mut chance);
        resident.push(resident_mib());
        if cycle == WARM {
            warm = Some(Figures::take(&resident));
        }
    }
    let warm = warm.expect("there were more cycles than that");
    let growth = Figures::take(&resident).since(&warm);
    for (name, value) in NAMES.iter().zip(growth) {
        println!("{name} {value}");
    }
    if growth.iter().zip(BARS).all(|(value, bar)| *value <= bar) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A small generator with a fixed sequence (xorshift64), so that each run is the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A model of 12 MiB.
fn fake_life(app: &mut App, chance: &mut Chance) {
    let model = FakeModel::new("model").tensors(4, 3 << 18);
    life::<Fake>(app, chance, model.source(), FakeRequest::default());
}

/// A small diffusion model, from its files.
fn folder_life(app: &mut App, chance: &mut Chance) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/grey");
    let request = DdpmRequest {
        class: Some(0),
        steps: 2,
        ..default()
    };
    life::<DdpmPipeline>(app, chance, folder.into(), request);
}

fn life<P: Pipeline>(app: &mut App, chance: &mut Chance, source: ModelSource, request: P::Request) {
    app.world_mut()
        .resource_mut::<ModelManager<P>>()
        .load(source);
    if chance.below(3) == 0 {
        for _ in 0..chance.below(8) {
            app.update();
        }
        app.world_mut().resource_mut::<ModelManager<P>>().cancel();
    } else {
        run_until_state::<P>(app, ModelState::Loaded);
        let job = app.world_mut().spawn(Infer::<P>::new(request)).id();
        if chance.below(2) == 0 {
            run_until(app, "the job", |world| world.get::<Infer<P>>(job).is_none());
        }
        app.world_mut().despawn(job);
    }
    app.world_mut().resource_mut::<ModelManager<P>>().unload();
    run_until_state::<P>(app, ModelState::Idle);
}

/// What the process holds.
struct Figures([i64; 4]);

impl Figures {
    /// `resident`: mebibytes after each cycle.
    fn take(resident: &[i64]) -> Self {
        // What the last life has sent to threads that nobody waits for.
        let mut before = allocator::all_bytes();
        wait_until("a heap at rest", || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            before == std::mem::replace(&mut before, allocator::all_bytes())
        });
        Self([
            median(&resident[resident.len() - LOOKED_AT..]),
            allocator::all_bytes(),
            entries("/proc/self/fd"),
            entries("/proc/self/task"),
        ])
    }

    fn since(&self, before: &Self) -> [i64; 4] {
        std::array::from_fn(|i| self.0[i] - before.0[i])
    }
}

fn resident_mib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0_i64) / 1024
}

fn median(values: &[i64]) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Only Linux lists them.
fn entries(folder: &str) -> i64 {
    fs::read_dir(folder).map_or(0, |entries| entries.count() as i64)
}
