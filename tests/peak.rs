//! The memory that models and jobs really have never exceeds the budget, switches and jobs included. A counting
//! allocator looks at each allocation, which is more often than each chunk and step.
//!
//! One test, in steps: the counters are the process's.

mod support {
    pub mod allocator;
    pub mod kinds;
}

use bevy::prelude::*;
use bevy_candle::{
    candle_nn::{Linear, VarBuilder, linear},
    prelude::*,
    test_kit::{FakeModel, FakeRequest, run_until_state},
};
use support::{
    allocator::{self, begin_peak, peak},
    kinds::*,
};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// Runs a story, and checks that it used its whole budget at some moment and never more.
#[track_caller]
fn assert_within(budget: u64, what: &str, story: impl FnOnce(&mut App)) {
    let mut app = app(budget);
    app.update();
    let before = begin_peak();
    story(&mut app);
    let used = (peak() - before) as u64;
    assert!(used <= budget, "{what}: {used} bytes of {budget}");
    assert!(used + 64 * 1024 > budget, "{what}: only {used} of {budget}");
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert_eq!(in_use(&app), 0);
}

#[test]
fn what_is_really_in_use_never_exceeds_the_budget() {
    // What a first app leaves in caches is no model's.
    drop(app(1 << 30));
    assert_within(4 * MIB, "switches of one manager", |app| {
        for name in ["a", "b", "c"] {
            switch::<0>(app, &FakeModel::new(name));
        }
    });
    assert_within(8 * MIB, "three models in the room of two", |app| {
        for _ in 0..3 {
            load::<0>(app, &FakeModel::new("a"));
            load::<1>(app, &FakeModel::new("b"));
            load::<2>(app, &FakeModel::new("c"));
        }
    });
    assert_within(12 * MIB, "parked models", |app| {
        manager::<0>(app).residency_mut().keep_parked = 2;
        for name in ["a", "b", "c", "d", "a", "c"] {
            switch::<0>(app, &FakeModel::new(name));
        }
        load::<1>(app, &FakeModel::new("e"));
        load::<2>(app, &FakeModel::new("f"));
    });
    assert_within(10 * MIB, "jobs that displace models", |app| {
        ask::<0>(app, &FakeModel::new("a"));
        ask::<1>(app, &FakeModel::new("b"));
        ask::<2>(app, &FakeModel::new("c"));
        let of = |mib| FakeRequest {
            memory: mib * MIB,
            ..steps(3)
        };
        let mut jobs = Vec::new();
        for _ in 0..4 {
            jobs.push(job::<0>(app, of(2)));
            jobs.push(job::<1>(app, of(6)));
            jobs.push(job::<2>(app, of(1)));
        }
        for job in jobs {
            assert!(ended(app, job).is_ok());
        }
    });
    cancels_and_reloads();
    a_parked_model_comes_back();
    half_floats();
}

/// Without an allocation of a size that counts.
fn a_parked_model_comes_back() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = app(8 * MIB);
    manager::<0>(&mut app).residency_mut().keep_parked = 1;
    switch::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    let before = begin_peak();
    switch::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    assert_eq!(peak(), before, "nothing large was allocated");
    assert_eq!(allocator::large_bytes(), before, "and nothing freed");
}

fn cancels_and_reloads() {
    assert_within(8 * MIB, "cancels and reloads", |app| {
        for i in 0..12 {
            ask::<0>(app, &FakeModel::new(format!("model {i}")));
            ask::<1>(app, &FakeModel::new(format!("other {i}")));
            frames(app, i % 7);
            manager::<1>(app).cancel();
            manager::<0>(app).reload();
            frames(app, i % 3);
        }
        load::<0>(app, &FakeModel::new("last"));
        load::<1>(app, &FakeModel::new("very last"));
    });
}

/// Weights that are converted take no second buffer: f16 on the disk, f32 and f64 in memory.
fn half_floats() {
    use bevy_candle::candle::{DType, Device, Tensor};
    let weights = Tensor::ones((512, 1024), DType::F16, &Device::Cpu).expect("a tensor");
    let bias = Tensor::ones(512, DType::F16, &Device::Cpu).expect("a tensor");
    let tensors = std::collections::HashMap::from([("weight", weights), ("bias", bias)]);
    let bytes = safetensors::serialize(&tensors, None).expect("bytes");
    let files = std::sync::Arc::new(MemoryFiles::new([("m.safetensors", bytes)]));
    drop(tensors);
    for (dtype, size) in [(DType::F32, 4), (DType::F64, 8), (DType::BF16, 2)] {
        let budget = (512 * 1024 + 512) * size;
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins,
            CandlePlugin {
                memory_budget: Some(budget),
                ..default()
            },
            ModelPlugin::<Layer>::default(),
        ));
        app.update();
        let before = begin_peak();
        let source = ModelSource::files("layer", files.clone()).dtype(dtype);
        app.world_mut()
            .resource_mut::<ModelManager<Layer>>()
            .load(source);
        run_until_state::<Layer>(&mut app, ModelState::Loaded);
        let used = (peak() - before) as u64;
        assert!(used <= budget, "{dtype:?}: {used} bytes of {budget}");
        assert!(
            used + 64 * 1024 > budget,
            "{dtype:?}: only {used} of {budget}"
        );
    }
}

/// One linear layer.
struct Layer {
    _linear: Linear,
}

impl Pipeline for Layer {
    type Config = ();
    type Settings = ();
    type Request = ();
    type Partial = ();
    type Output = ();

    fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Plan::new(())
            .weights(files, "m.safetensors")?
            .check(|(), vb| linear(1024, 512, vb))
    }

    async fn build((): (), weights: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        let _linear = linear(1024, 512, weights)?;
        Ok(Self { _linear })
    }

    async fn infer(&self, (): (), _: Steps<Self>) -> Result<(), InferError> {
        Ok(())
    }
}
