//! Where there is no pinned memory, tensors go to a card one by one: they arrive, and the heap that they lay on is given
//! back, after a load and after a cancel.
//!
//! A card has pinned memory. The stand-in for the driver has none where it is told so: `docs/gpu.md`.

mod support {
    pub mod card;
}

use std::{io::Write, sync::Arc};

use bevy::prelude::*;
use bevy_candle::{
    MemoryFiles,
    candle::{DType, cuda_backend::cudarc::driver::CudaContext},
    prelude::*,
    test_kit::{Gate, GatedFiles, run_until, run_until_state},
};
use support::card::*;

/// Tensors of 4 MiB, which the C library takes from its heaps.
const SIZES: [usize; 24] = [1 << 20; 24];

/// What they have together.
const BYTES: u64 = 96 * MIB;

/// What the process may have more than before, for other reasons.
const SLACK: u64 = 12 * MIB;

#[test]
fn without_pinned_memory_tensors_arrive_and_leave_the_heap() {
    if !has_card() || has_pinned_memory() {
        return;
    }
    let mut app = app(None);
    load_and_wait(&mut app, source("warm up", &[1 << 20; 3]));
    unload(&mut app);
    let files = files(&SIZES, DType::F32);
    after_a_load(&mut app, &files);
    after_a_cancel(&mut app, &files);
}

/// Says so where there is some: as `has_card`.
fn has_pinned_memory() -> bool {
    let context = CudaContext::new(0).expect("a device");
    #[expect(unsafe_code, reason = "cudarc leaves pinned memory as it is")]
    // SAFETY: nobody looks at it.
    let found = unsafe { context.alloc_pinned::<u8>(1) }.is_ok();
    if found {
        let _ = writeln!(std::io::stderr(), "a CUDA device with pinned memory");
    }
    found
}

fn after_a_load(app: &mut App, files: &Arc<MemoryFiles>) {
    let before = resident();
    load_and_wait(app, ModelSource::files("whole", files.clone()));
    // The card's memory is the stand-in's, and so the process's.
    run_until(app, "the heap", |_| resident() < before + BYTES + SLACK);
    let found = run::<Card>(app, Ask::Values).expect("values");
    for (i, elements) in SIZES.into_iter().enumerate() {
        assert!(found[i] == values(i, elements), "tensor {i}");
    }
    drop(found);
    unload(app);
}

fn after_a_cancel(app: &mut App, files: &Arc<MemoryFiles>) {
    let before = resident();
    let gate = Gate::closed();
    let gated = GatedFiles::new(files.clone(), &gate);
    load::<Card>(app, ModelSource::files("cancelled", Arc::new(gated)));
    // Each of them reads a quarter of a tensor.
    let reads = PLANNED + 2 * SIZES.len();
    gate.let_pass(reads);
    run_until(app, "readers at the gate", |_| {
        gate.passed() == reads && gate.waiting() > 0
    });
    let mut manager = app.world_mut().resource_mut::<ModelManager<Card>>();
    manager.cancel();
    gate.open();
    run_until_state::<Card>(app, ModelState::Idle);
    let left = resident().saturating_sub(before);
    assert!(left < SLACK, "{left} bytes more than before");
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the stand-in runs on Linux");
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    4096 * pages.unwrap_or(0_u64)
}
