//! What a model takes of a card comes back to the byte: after an unload, a hundred times, and after a cancel at any point
//! of an upload. And what arrives is what is in the file.
//!
//! One test, in steps: the pool is the process's.

mod support {
    pub mod card;
}

use std::sync::Arc;

use bevy::prelude::*;
use bevy_candle::{
    CardReport, MemoryFiles,
    candle::DType,
    prelude::*,
    test_kit::{Fake, FakeModel, Gate, GatedFiles, run_until, run_until_state},
};
use support::card::{counters::*, *};

/// Tensors that share a buffer, that fill several, and that end in the middle of one; and one without elements.
const SIZES: [usize; 8] = [1, 3, 1 << 20, 77, 0, (3 << 20) + 5, 1000, 1 << 21];

/// Numbers of a model that the pool takes three granules for, and more than what stays of the warm-up.
const LARGE: usize = 24 << 20;

/// Models without weights, of any size.
type Sized = Fake<1>;

#[test]
fn a_card_gets_everything_back() {
    if !has_card() {
        return;
    }
    let mut app = app(None);
    app.add_plugins(ModelPlugin::<Sized>::default());
    load_and_wait(&mut app, source("warm up", &SIZES));
    run::<Card>(&mut app, Ask::Values).expect("values");
    let idle = unload(&mut app);

    one_model(&mut app, &idle);
    what_arrives(&mut app, &idle);
    a_cancel_at_any_point(&mut app, &idle);
    a_read_that_fails(&mut app, &idle);
    beside_an_error_that_was_left_behind(&mut app, &idle);
    a_hundred_cycles(&mut app, &idle);
}

#[track_caller]
fn assert_back(report: &CardReport, idle: &CardReport) {
    assert_eq!(report.used_after, idle.used_after, "used, to the byte");
    assert_reserved(report.reserved_after, idle);
}

#[track_caller]
fn assert_reserved(reserved: Option<u64>, idle: &CardReport) {
    let most = idle.reserved_after.map(|idle| idle + GRANULE);
    assert!(
        reserved.is_some() && reserved <= most,
        "{reserved:?} after {idle:?}"
    );
}

fn one_model(app: &mut App, idle: &CardReport) {
    load_and_wait(app, source("one", &[LARGE]));
    let report = unload(app);
    assert_back(&report, idle);
    let claimed = 4 * LARGE as u64;
    let used = report.used_before.expect("a pool") - report.used_after.expect("a pool");
    assert!(used >= claimed, "{used} of {claimed}");
    let full = app.world().resource::<ModelManager<Card>>().last_release;
    assert_eq!(full.and_then(|report| report.freed), Some(used));
    // Others may change what is free on the card: the pool is ours.
    assert!(report.reserved_before >= Some(claimed), "{report:?}");
    assert!(report.reserved_after < report.reserved_before, "{report:?}");
}

fn what_arrives(app: &mut App, idle: &CardReport) {
    for (stored, run_as) in [
        (DType::F32, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F32, DType::F16),
        (DType::F16, DType::F16),
    ] {
        let id = format!("{stored:?} as {run_as:?}");
        load_and_wait(
            app,
            ModelSource::files(id.clone(), files(&SIZES, stored)).dtype(run_as),
        );
        let found = run::<Card>(app, Ask::Values).expect("values");
        for (i, elements) in SIZES.into_iter().enumerate() {
            assert!(found[i] == values(i, elements), "tensor {i}, {id}");
        }
        assert_back(&unload(app), idle);
    }
}

/// Where nobody reads on: what the card had is back before the readers have heard of the end.
fn a_cancel_at_any_point(app: &mut App, idle: &CardReport) {
    for passed in 0..20 {
        let gate = Gate::closed();
        let gated = GatedFiles::new(files(&SIZES, DType::F32), &gate);
        load::<Card>(app, ModelSource::files("cancelled", Arc::new(gated)));
        gate.let_pass(PLANNED + passed);
        run_until(app, "a reader at the gate", |_| {
            gate.passed() == PLANNED + passed && gate.waiting() > 0
        });
        app.world_mut()
            .resource_mut::<ModelManager<Card>>()
            .cancel();
        run_until(app, "the card's memory", |_| {
            Some(pool_used()) == idle.used_after
        });
        let manager = app.world().resource::<ModelManager<Card>>();
        assert_eq!(
            manager.current_state,
            ModelState::Loading,
            "buffers are out"
        );
        assert_eq!(gate.passed(), PLANNED + passed);
        gate.open();
        run_until_state::<Card>(app, ModelState::Idle);
        assert_back(&last_report(app), idle);
        assert_eq!(Some(pool_used()), idle.used_after, "{passed} chunks");
    }
}

/// Files whose weights cannot be read to their end.
struct Torn(Arc<MemoryFiles>);

impl ModelFiles for Torn {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.0.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.0.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        if offset > 12 * MIB {
            return Err(LoadError::CutShort {
                file: name.into(),
                expected: offset + buf.len() as u64,
                found: offset,
            });
        }
        self.0.read_at(name, offset, buf)
    }
}

/// Copies are under way when the load ends.
fn a_read_that_fails(app: &mut App, idle: &CardReport) {
    let torn = Torn(files(&SIZES, DType::F32));
    load::<Card>(app, ModelSource::files("torn", Arc::new(torn)));
    run_until_state::<Card>(app, ModelState::Loading);
    run_until_state::<Card>(app, ModelState::Failed);
    let error = last_error(app);
    assert!(
        matches!(error.as_deref(), Some(LoadError::CutShort { file, .. }) if file == "weights.safetensors"),
        "{error:?}"
    );
    assert_eq!(Some(pool_used()), idle.used_after);
    assert_reserved(Some(pool_reserved()), idle);
    app.world_mut()
        .resource_mut::<ModelManager<Card>>()
        .unload();
    run_until_state::<Card>(app, ModelState::Idle);
}

/// It is not taken for one of the next job, nor of the next load, which is refused before its first read.
fn beside_an_error_that_was_left_behind(app: &mut App, idle: &CardReport) {
    load_and_wait(app, source("careless", &[1]));
    run::<Card>(app, Ask::LeaveAnError).expect("it is not seen");
    let found = run::<Card>(app, Ask::Values).expect("it is another's error");
    assert!(found[0] == values(0, 1));
    run::<Card>(app, Ask::LeaveAnError).expect("it is not seen");
    a_model_that_is_too_large(app);
    assert_back(&unload(app), idle);
}

/// Too large for any card, and not for the budget.
fn a_model_that_is_too_large(app: &mut App) {
    let mut memory = app.world_mut().resource_mut::<ResourceManager>();
    memory.set_budget(DeviceChoice::Cuda(0), 1 << 50);
    let reads = Gate::closed();
    let model = FakeModel::new("too large").tensors(1 << 12, 1 << 28);
    let model = model.gate_reads(&reads);
    load::<Sized>(app, model.source());
    run_until(app, "the card's answer", |world| {
        let manager = world.resource::<ModelManager<Sized>>();
        manager.current_state == ModelState::Failed || reads.waiting() > 0
    });
    assert_eq!(reads.waiting(), 0, "a card that is too small is filled");
    let manager = app.world().resource::<ModelManager<Sized>>();
    let error = manager.last_error.as_deref();
    assert!(
        matches!(error, Some(LoadError::DeviceOutOfMemory { needed, free })
            if *needed == model.bytes() && free < needed),
        "{error:?}"
    );
}

fn a_hundred_cycles(app: &mut App, idle: &CardReport) {
    for _ in 0..100 {
        load_and_wait(app, source("again", &[1 << 18, 100, 1 << 16]));
        run::<Card>(app, Ask::Take(MIB)).expect("room");
        assert_back(&unload(app), idle);
    }
}
