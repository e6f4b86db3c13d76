//! A card that lends no buffers for a while, or many at once, does not hold up loads to the CPU, which share the readers of
//! the process.

mod support {
    pub mod card;
}

use std::{sync::Arc, thread};

use bevy::prelude::*;
use bevy_candle::{
    candle::DType,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, GatedFiles, Place, run_until, run_until_state},
};
use support::card::*;

/// Each tensor is a batch of its own, and there are more batches than readers. Together they are several times what all buffers
/// of a load have.
const SIZES: [usize; 8] = [1 << 21; 8];

/// A buffer has 2 MiB, and a read is one of 1 MiB.
const READS_OF_A_BUFFER: usize = 2;

/// Keeps the card's thread.
type Busy = Fake<1>;

#[test]
fn loads_to_the_cpu_go_on_while_a_card_lends_no_buffers() {
    if !has_card() {
        return;
    }
    let mut app = app_with_others();
    let card = Gate::closed();
    let reads = load_to_a_card_that_is_kept(&mut app, &card);
    reads.open();
    load::<Fake>(&mut app, FakeModel::new("on the CPU").source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let state = app.world().resource::<ModelManager<Card>>().current_state;
    assert_eq!((state, card.waiting()), (ModelState::Loading, 1));
    card.open();
    assert_arrives(&mut app);
}

#[test]
fn a_load_whose_buffers_come_back_at_once_leaves_a_reader_to_others() {
    if !has_card() {
        return;
    }
    let mut app = app_with_others();
    let card = Gate::closed();
    let reads = load_to_a_card_that_is_kept(&mut app, &card);
    // All buffers are full, and on their way.
    let filled = PLANNED + 2 * readers_of_one_load() * READS_OF_A_BUFFER;
    reads.let_pass(filled - PLANNED);
    run_until(&mut app, "full buffers", |_| {
        (reads.passed(), reads.waiting()) == (filled, 0)
    });
    card.open();
    run_until(&mut app, "readers with buffers again", |_| {
        reads.waiting() >= readers_of_one_load()
    });
    load::<Fake>(&mut app, FakeModel::new("on the CPU").source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    assert_eq!(reads.waiting(), readers_of_one_load());
    reads.open();
    assert_arrives(&mut app);
}

/// An app with two more managers: one on the card, and one on the CPU.
fn app_with_others() -> App {
    let mut app = app(None);
    app.add_plugins((
        ModelPlugin::<Busy>::default(),
        ModelPlugin::<Fake> {
            device: Some(DeviceChoice::Cpu),
            ..default()
        },
    ));
    app
}

/// Begins a load to the card, whose thread a job then keeps until its gate opens. Returns what holds the reads.
fn load_to_a_card_that_is_kept(app: &mut App, gate: &Gate) -> Gate {
    let busy = FakeModel::new("busy").block_in(Place::Infer, gate);
    load::<Busy>(app, busy.source());
    run_until_state::<Busy>(app, ModelState::Loaded);
    let reads = readers_with_buffers(app);
    let job = Infer::<Busy>::new(FakeRequest::default());
    app.world_mut().spawn(job);
    run_until(app, "the card's thread", |_| gate.waiting() == 1);
    reads
}

fn readers_of_one_load() -> usize {
    thread::available_parallelism().map_or(3, |cores| cores.get().clamp(3, 4))
}

fn assert_arrives(app: &mut App) {
    run_until_state::<Card>(app, ModelState::Loaded);
    let found = run::<Card>(app, Ask::Values).expect("values");
    for (i, elements) in SIZES.into_iter().enumerate() {
        assert!(found[i] == values(i, elements), "tensor {i}");
    }
}

/// Begins a load to the card, up to where its readers have buffers. Returns what holds them there.
fn readers_with_buffers(app: &mut App) -> Gate {
    let gate = Gate::closed();
    let gated = GatedFiles::new(files(&SIZES, DType::F32), &gate);
    load::<Card>(app, ModelSource::files("large", Arc::new(gated)));
    gate.let_pass(PLANNED);
    run_until(app, "readers at the gate", |_| {
        gate.passed() == PLANNED && gate.waiting() > 0
    });
    gate
}
