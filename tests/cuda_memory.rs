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

/// What it may leave besides.
const REST: u64 = 16 * MIB;

/// How often a step is tried anew that others have spoiled.
const ATTEMPTS: usize = 5;

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
        let free = || context.mem_get_info().expect("figures").0 as u64;
        let (mut blocks, mut most) = (Vec::new(), 1 << 30);
        while most > REST && free() > LEFT + REST {
            let bytes = free().saturating_sub(LEFT).clamp(REST, most);
            #[expect(
                unsafe_code,
                reason = "cudarc has no safe wrapper that is not a pool's"
            )]
            // SAFETY: the context is bound, and the block is freed once, in `drop`.
            match unsafe { result::malloc_sync(bytes as usize) } {
                Ok(block) => blocks.push(block),
                // What was free has been taken by others, or lies in pieces.
                Err(_) => most = bytes / 2,
            }
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
    undisturbed(&mut app, a_card_that_fills_up_meanwhile);
    undisturbed(&mut app, a_model_that_is_too_large);
    undisturbed(&mut app, a_job_that_is_too_large);
    undisturbed(&mut app, the_next_smaller_one);
    undisturbed(&mut app, room_again);
}

/// Tries a step until it says that nobody has spoiled it. The ballast fills the card for everybody, and other programs take
/// and free what they like in the meantime: what then fits, or does not, is no verdict on us.
fn undisturbed(app: &mut App, step: fn(&mut App) -> bool) {
    let done = (0..ATTEMPTS).any(|_| step(app));
    assert!(done, "others change what is free on the card all the time");
}

/// Loads a model, and returns why that has failed.
fn load_and_see(app: &mut App, source: ModelSource) -> Option<Arc<LoadError>> {
    load::<Card>(app, source);
    run_until_state::<Card>(app, ModelState::Loading);
    how_it_ends(app)
}

fn how_it_ends(app: &mut App) -> Option<Arc<LoadError>> {
    run_until(app, "the end of the load", |world| {
        let manager = world.resource::<ModelManager<Card>>();
        manager.current_state != ModelState::Loading
    });
    last_error(app)
}

/// What a card that is full for a model has left; [`None`] where the model was loaded, since others have made room.
fn free_beside(app: &mut App, error: Option<Arc<LoadError>>, bytes: u64) -> Option<u64> {
    let Some(error) = error else {
        unload(app);
        return None;
    };
    let LoadError::DeviceOutOfMemory { needed, free } = *error else {
        panic!("{error:?}");
    };
    assert_eq!(needed, bytes);
    assert_works(app);
    Some(free)
}

/// There is room when the load begins, and none when its large tensor comes.
fn a_card_that_fills_up_meanwhile(app: &mut App) -> bool {
    let gate = Gate::closed();
    let gated = GatedFiles::new(files(&[1 << 20, 64 << 20], DType::F32), &gate);
    load::<Card>(app, ModelSource::files("meanwhile", Arc::new(gated)));
    gate.let_pass(PLANNED);
    run_until_state::<Card>(app, ModelState::Loading);
    run_until(app, "a reader at the gate", |world| {
        let manager = world.resource::<ModelManager<Card>>();
        let is_read = gate.passed() == PLANNED && gate.waiting() > 0;
        is_read || manager.current_state == ModelState::Failed
    });
    let had_room = gate.waiting() > 0;
    let _ballast = Ballast::take();
    gate.open();
    let error = how_it_ends(app);
    let free = free_beside(app, error, 260 * MIB);
    had_room && free.is_some_and(|free| free < 256 * MIB)
}

fn a_model_that_is_too_large(app: &mut App) -> bool {
    let _ballast = Ballast::take();
    let error = load_and_see(app, source("large", &[64 << 20]));
    let free = free_beside(app, error, 256 * MIB);
    free.is_some_and(|free| (1..256 * MIB).contains(&free))
}

fn a_job_that_is_too_large(app: &mut App) -> bool {
    let _ballast = Ballast::take();
    let end = run::<Other>(app, Ask::Take(512 * MIB));
    assert_works(app);
    match end {
        Err(InferError::DeviceOutOfMemory { needed, free }) => {
            assert_eq!(needed, 512 * MIB);
            free < needed
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => false,
    }
}

fn the_next_smaller_one(app: &mut App) -> bool {
    let _ballast = Ballast::take();
    let error = load_and_see(app, source("small", &[1 << 20]));
    if error.is_some() {
        free_beside(app, error, 4 * MIB);
        return false;
    }
    let found = run::<Card>(app, Ask::Values).expect("values");
    assert!(found[0] == values(0, 1 << 20));
    unload(app);
    true
}

fn room_again(app: &mut App) -> bool {
    let error = load_and_see(app, source("large", &[64 << 20]));
    if error.is_some() {
        free_beside(app, error, 256 * MIB);
        return false;
    }
    let end = run::<Card>(app, Ask::Take(256 * MIB));
    unload(app);
    let is_full = matches!(end, Err(InferError::DeviceOutOfMemory { .. }));
    assert!(end.is_ok() || is_full, "{end:?}");
    !is_full
}

/// The other model still does what it does, and nobody takes the device for a broken one.
#[track_caller]
fn assert_works(app: &mut App) {
    let found = run::<Other>(app, Ask::Values).expect("values");
    assert!(found[0] == values(0, 1 << 20));
    let memory = app.world().resource::<ResourceManager>();
    assert_eq!(memory.devices()[0].unusable, None);
}
