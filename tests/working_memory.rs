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

/// Four steps, so that samplers that remember have something to.
fn request(batch: u32, class: Option<u32>) -> DdpmRequest {
    DdpmRequest {
        batch,
        class,
        steps: 4,
        ..default()
    }
}

fn run(app: &mut App, request: &DdpmRequest) -> Result<DdpmOutput, InferError> {
    let job = Infer::<DdpmPipeline>::new(request.clone()).previews_every(1);
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

/// Returns what a job claims: the refusal says it.
fn claimed(source: &ModelSource, request: &DdpmRequest) -> u64 {
    let mut app = app(1 << 40);
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(source.clone());
    run_until_state::<DdpmPipeline>(&mut app, ModelState::Loaded);
    let weights = app.world().resource::<ResourceManager>().in_use();
    app.world_mut()
        .resource_mut::<ResourceManager>()
        .set_budget(DeviceChoice::Cpu, weights);
    match run(&mut app, request) {
        Err(InferError::OverBudget { needed, .. }) => needed,
        other => panic!("there is no room for a job: {other:?}"),
    }
}

#[track_caller]
fn assert_enough(source: &ModelSource, request: &DdpmRequest) {
    let needed = claimed(source, request);
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
        run(&mut app, request).expect("exactly enough");
        let used = (peak() - before) as u64;
        assert!(
            used <= weights + needed,
            "{source:?}, {request:?}: {used} bytes, {weights} for weights and {needed} claimed"
        );
        used - weights
    });
    used.sort_unstable();
    let most = (used[1] as f64 * (1.0 + SLACK)) as u64 + FIXED;
    assert!(
        needed <= most,
        "{source:?}, {request:?}: {needed} bytes claimed for {}",
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
        assert_enough(&folder("rgb"), &request(batch, None));
        assert_enough(&folder("grey"), &request(batch, Some(2)));
        assert_enough(&sprites, &request(batch, Some(1)));
    }
    for name in ["cifar", "celebahq", "resnet", "ncsnpp", "learned"] {
        assert_enough(&folder(name), &request(4, None));
    }
    assert_enough(&folder("rgba").variant("fp16"), &request(4, None));
    assert_enough(&folder("timestep"), &request(4, Some(5)));
    // Many small samples: each has a state of its own for its noise.
    assert_enough(&folder("timestep"), &request(64, Some(5)));
    let guidance = Some(Guidance::new(2.0, 0));
    let guided = DdpmRequest {
        guidance,
        sampler: Some(Sampler::DpmSolverPlusPlus),
        ..request(4, Some(1))
    };
    assert_enough(&sprites, &guided);
    assert_enough(&sprites.clone().dtype(DType::F64), &request(4, Some(1)));
    assert_enough(&sprites.dtype(DType::F16), &request(4, Some(1)));
}
