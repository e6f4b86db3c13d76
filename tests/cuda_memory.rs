//! A card that is full is an error with needed and free bytes; the other models go on, and what is smaller is loaded.
//!
//! One test, in steps: the card is the process's.

mod support {
    pub mod card;
}

use std::sync::Arc;

use bevy::prelude::*;
use bevy_candle::{
    candle::{
        DType,
        cuda_backend::cudarc::driver::{CudaContext, result, sys::CUdeviceptr},
    },
    prelude::*,
    test_kit::{Gate, GatedFiles, run_until, run_until_state},
};
use support::card::*;

/// What the ballast leaves.
const LEFT: u64 = 192 * MIB;

/// A second manager of the same kind of models.
struct Second;
type Other = Slot<Card, Second>;

/// Memory of the card that is no model's, as a renderer's.
struct Ballast {
    context: Arc<CudaContext>,
    blocks: Vec<CUdeviceptr>,
}

impl Ballast {
    /// Takes what is free but for [`LEFT`].
    fn take() -> Self {
        let context = CudaContext::new(0).expect("a device");
        let mut blocks = Vec::new();
        let free = || context.mem_get_info().expect("figures").0 as u64;
        while free() > LEFT + 16 * MIB {
            let bytes = (free() - LEFT).min(1 << 30);
            #[expect(
                unsafe_code,
                reason = "cudarc has no safe wrapper that is not a pool's"
            )]
            // SAFETY: the context is bound, and the block is freed once, in `drop`.
            let block = unsafe { result::malloc_sync(bytes as usize) };
            blocks.push(block.expect("it is free"));
        }
        Self { context, blocks }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.context.bind_to_thread().expect("it works");
        for block in self.blocks.drain(..) {
            #[expect(unsafe_code, reason = "as above")]
            // SAFETY: it was taken in `take`, and is freed once.
            unsafe { result::free_sync(block) }.expect("it is there");
        }
    }
}

#[test]
fn a_full_card_is_an_error_and_the_others_go_on() {
    if !has_card() {
        return;
    }
    // The budget is not what refuses.
    let mut app = app(Some(1 << 50));
    app.add_plugins(ModelPlugin::<Other>::default());
    load::<Other>(&mut app, source("other", &[1 << 20]));
    run_until_state::<Other>(&mut app, ModelState::Loaded);
    a_card_that_fills_up_meanwhile(&mut app);
    let ballast = Ballast::take();
    a_model_that_is_too_large(&mut app);
    a_job_that_is_too_large(&mut app);
    the_next_smaller_one(&mut app);
    drop(ballast);
    load_and_wait(&mut app, source("large", &[64 << 20]));
    run::<Card>(&mut app, Ask::Take(256 * MIB)).expect("there is room again");
}

/// There is room when the load begins, and none when its large tensor comes.
fn a_card_that_fills_up_meanwhile(app: &mut App) {
    let gate = Gate::closed();
    let gated = GatedFiles::new(files(&[1 << 20, 64 << 20], DType::F32), &gate);
    load::<Card>(app, ModelSource::files("meanwhile", Arc::new(gated)));
    gate.let_pass(PLANNED);
    run_until(app, "a reader at the gate", |_| {
        gate.passed() == PLANNED && gate.waiting() > 0
    });
    let ballast = Ballast::take();
    gate.open();
    run_until_state::<Card>(app, ModelState::Failed);
    let error = last_error(app);
    assert!(
        matches!(error.as_deref(), Some(LoadError::DeviceOutOfMemory { needed, free })
            if *needed == 260 * MIB && *free < 256 * MIB),
        "{error:?}"
    );
    assert_works(app);
    drop(ballast);
}

fn a_model_that_is_too_large(app: &mut App) {
    load::<Card>(app, source("large", &[64 << 20]));
    run_until_state::<Card>(app, ModelState::Loading);
    run_until_state::<Card>(app, ModelState::Failed);
    let error = last_error(app);
    assert!(
        matches!(error.as_deref(), Some(LoadError::DeviceOutOfMemory { needed, free })
            if *needed == 256 * MIB && *free < 256 * MIB && *free > 0),
        "{error:?}"
    );
    assert_works(app);
}

fn a_job_that_is_too_large(app: &mut App) {
    let error = run::<Other>(app, Ask::Take(512 * MIB)).expect_err("there is no room");
    assert!(
        matches!(error, InferError::DeviceOutOfMemory { needed, free }
            if needed == 512 * MIB && free < 512 * MIB),
        "{error:?}"
    );
    assert_works(app);
}

fn the_next_smaller_one(app: &mut App) {
    load_and_wait(app, source("small", &[1 << 20]));
    let found = run::<Card>(app, Ask::Values).expect("values");
    assert!(found[0] == values(0, 1 << 20));
    unload(app);
}

/// The other model still does what it does, and nobody takes the device for a broken one.
#[track_caller]
fn assert_works(app: &mut App) {
    let found = run::<Other>(app, Ask::Values).expect("values");
    assert!(found[0] == values(0, 1 << 20));
    let memory = app.world().resource::<ResourceManager>();
    assert_eq!(memory.devices()[0].unusable, None);
}
