//! A tensor of candle's default device that is dropped on another thread is never freed. On a device as ours it is.
//!
//! One test, in steps: the pool is the process's.

mod support {
    pub mod card;
}

use bevy::prelude::*;
use bevy_candle::{
    MemoryFiles,
    candle::{DType, Device, Tensor},
    prelude::*,
    test_kit::run_until_state,
};
use candle_nn::VarBuilder;
use std::sync::Arc;
use support::card::{counters::*, *};

/// Gives a tensor away, which no pipeline should.
struct Careless(Device);

impl Pipeline for Careless {
    type Config = ();
    type Settings = ();
    type Request = ();
    type Partial = ();
    type Output = Tensor;

    fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Ok(Plan::new(()))
    }

    async fn build(_: (), weights: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self(weights.device().clone()))
    }

    async fn infer(&self, _: (), _: Steps<Self>) -> Result<Tensor, InferError> {
        large(&self.0).map_err(InferError::failed)
    }
}

fn large(device: &Device) -> bevy_candle::candle::Result<Tensor> {
    Tensor::zeros((8 * MIB) as usize, DType::U8, device)
}

/// Drops a tensor on a thread that has never seen the device; returns what of it is still there.
fn left_after_a_drop_elsewhere(device: &Device) -> u64 {
    let before = pool_used();
    let tensor = large(device).expect("room");
    device.synchronize().expect("it works");
    std::thread::spawn(move || drop(tensor))
        .join()
        .expect("no panic");
    // The first call may only tell of a drop that failed.
    let _ = device.synchronize();
    device.synchronize().expect("it still works");
    pool_used() - before
}

#[test]
fn only_a_device_with_a_stream_of_its_own_frees_what_is_dropped_elsewhere() {
    if !has_card() {
        return;
    }
    let of_each_thread = Device::new_cuda(0).expect("a device");
    assert_eq!(left_after_a_drop_elsewhere(&of_each_thread), 8 * MIB);
    let of_its_own = Device::new_cuda_with_stream(0).expect("a device");
    assert_eq!(left_after_a_drop_elsewhere(&of_its_own), 0);
    a_tensor_that_a_pipeline_gives_away();
}

fn a_tensor_that_a_pipeline_gives_away() {
    let mut app = app(None);
    app.add_plugins(ModelPlugin::<Careless>::default());
    let nothing = MemoryFiles::new([("nothing", Vec::new())]);
    load::<Careless>(&mut app, ModelSource::files("a", Arc::new(nothing)));
    run_until_state::<Careless>(&mut app, ModelState::Loaded);
    let before = pool_used();
    let tensor = run::<Careless>(&mut app, ()).expect("a tensor");
    assert!(pool_used() >= before + 8 * MIB);
    drop(tensor);
    app.world_mut()
        .resource_mut::<ModelManager<Careless>>()
        .unload();
    run_until_state::<Careless>(&mut app, ModelState::Idle);
    assert_eq!(pool_used(), before);
}
