//! What a diffusion job claims is at least what it uses, and not much more.
//!
//! One test, in steps: the counters are the process's.

mod support {
    pub mod allocator;
}

use std::num::NonZeroUsize;

use bevy::prelude::*;
use bevy_candle::{
    candle::DType,
    prelude::*,
    test_kit::{run_until, run_until_state},
};
use support::allocator::{self, begin_peak, peak};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// What a job may claim in vain, as a part of what it uses: bounds are rounded up.
const SLACK: f64 = 0.6;

/// Where nearly everything is small, the threads' own buffers count most.
const FIXED: u64 = 4 << 20;

#[derive(Resource, Default)]
struct Ended(Option<Result<DdpmOutput, InferError>>);

fn app(budget: u64) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(budget),
            threads: NonZeroUsize::new(2),
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

fn run(app: &mut App, batch: u32, class: Option<u32>) -> Result<DdpmOutput, InferError> {
    let request = DdpmRequest {
        batch,
        class,
        steps: 2,
        ..default()
    };
    let job = Infer::<DdpmPipeline>::new(request).previews_every(1);
    app.world_mut().spawn(job);
    run_until(app, "the job", |world| {
        world.resource::<Ended>().0.is_some()
    });
    app.world_mut()
        .resource_mut::<Ended>()
        .0
        .take()
        .expect("it has ended")
}

/// Returns what a job of this batch claims: the refusal says it.
fn claimed(source: &ModelSource, batch: u32, class: Option<u32>) -> u64 {
    let mut app = app(1 << 40);
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(source.clone());
    run_until_state::<DdpmPipeline>(&mut app, ModelState::Loaded);
    let weights = app.world().resource::<ResourceManager>().in_use();
    app.world_mut()
        .resource_mut::<ResourceManager>()
        .set_budget(DeviceChoice::Cpu, weights);
    match run(&mut app, batch, class) {
        Err(InferError::OverBudget { needed, .. }) => needed,
        other => panic!("there is no room for a job: {other:?}"),
    }
}

fn assert_enough(source: &ModelSource, batch: u32, class: Option<u32>) {
    let needed = claimed(source, batch, class);
    // Twice, so that what candle's threads keep for ever is there.
    let mut used = [0, 0].map(|_: u64| {
        let mut app = app(1 << 40);
        app.update();
        let before = begin_peak();
        app.world_mut()
            .resource_mut::<ModelManager<DdpmPipeline>>()
            .load(source.clone());
        run_until_state::<DdpmPipeline>(&mut app, ModelState::Loaded);
        let weights = app.world().resource::<ResourceManager>().in_use();
        app.world_mut()
            .resource_mut::<ResourceManager>()
            .set_budget(DeviceChoice::Cpu, weights + needed);
        run(&mut app, batch, class).expect("exactly enough");
        let used = (peak() - before) as u64;
        assert!(
            used <= weights + needed,
            "batch {batch}: {used} bytes, {weights} for weights and {needed} claimed"
        );
        used - weights
    });
    used.sort_unstable();
    let most = (used[1] as f64 * (1.0 + SLACK)) as u64 + FIXED;
    assert!(
        needed <= most,
        "batch {batch}: {needed} bytes claimed for {}",
        used[1]
    );
}

#[test]
fn a_diffusion_job_claims_what_it_uses() {
    let folder = |name: &str| {
        ModelSource::from(format!(
            "{}/tests/fixtures/{name}",
            env!("CARGO_MANIFEST_DIR")
        ))
    };
    let sprites = ModelSource::from("models/sprites");
    for batch in [1, 3, 16] {
        assert_enough(&folder("rgb"), batch, None);
        assert_enough(&folder("grey"), batch, Some(2));
        assert_enough(&sprites, batch, Some(1));
    }
    assert_enough(&sprites.clone().dtype(DType::F64), 4, Some(1));
    assert_enough(&sprites.dtype(DType::F16), 4, Some(1));
}
