//! How late a job is while another model of 1 GiB loads, builds, is dropped and is evicted on the same device.
//!
//! ```text
//! cargo bench --bench turns
//! ```
//!
//! A job of many small steps runs all the time; the gap between two of its steps, beyond what it is when
//! nothing else happens, is its lateness. Prints `name value` lines: milliseconds.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Place, run_until, run_until_state},
};

/// What one step of the job works.
const WORK: Duration = Duration::from_millis(2);

/// How often the large model comes and goes, for each size of its tensors.
const CYCLES: usize = 5;

fn main() {
    for (name, tensors, elements) in [
        ("large", 16, 16 << 20),
        ("medium", 64, 4 << 20),
        ("small", 1024, 1 << 18),
    ] {
        let lateness = lateness(&FakeModel::new("huge").tensors(tensors, elements));
        let at = |part: f64| {
            let index = (lateness.len() as f64 * part) as usize;
            lateness[index.min(lateness.len() - 1)].as_secs_f64() * 1e3
        };
        println!("late_{name}_p99_ms {:.2}", at(0.99));
        println!("late_{name}_worst_ms {:.2}", at(1.0));
    }
}

/// Returns how late each step was, sorted.
fn lateness(huge: &FakeModel) -> Vec<Duration> {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(2 << 30),
            ..default()
        },
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>>::default(),
    ));
    let steady = FakeModel::new("steady");
    load::<0>(&mut app, &steady);
    let request = FakeRequest {
        steps: u32::MAX,
        work: WORK,
        ..default()
    };
    let job = app.world_mut().spawn(Infer::<Fake>::new(request)).id();
    for _ in 0..CYCLES {
        load::<1>(&mut app, huge);
        app.world_mut()
            .resource_mut::<ModelManager<Fake<1>>>()
            .unload();
        run_until_state::<Fake<1>>(&mut app, ModelState::Idle);
    }
    app.world_mut().despawn(job);
    let steps = steady.log();
    let times: Vec<Instant> = steps
        .iter()
        .filter(|event| event.place == Place::Infer)
        .map(|event| event.time)
        .collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    let mut late: Vec<_> = gaps.map(|gap| gap.saturating_sub(WORK)).collect();
    late.sort_unstable();
    assert!(late.len() > 100, "only {} steps were taken", late.len());
    late
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
