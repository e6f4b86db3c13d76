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

/// One test, and one app: the card has one thread then, as the stand-in for a driver asks.
#[test]
fn loads_to_the_cpu_go_on_beside_one_to_a_card() {
    if !has_card() {
        return;
    }
    let mut app = app_with_others();
    while_the_card_lends_no_buffers(&mut app);
    unload_all(&mut app);
    where_many_buffers_come_back_at_once(&mut app);
    unload_all(&mut app);
}

fn while_the_card_lends_no_buffers(app: &mut App) {
    let card = Gate::closed();
    let reads = load_to_a_card_that_is_kept(app, &card);
    reads.open();
    load_to_the_cpu(app);
    let state = app.world().resource::<ModelManager<Card>>().current_state;
    assert_eq!((state, card.waiting()), (ModelState::Loading, 1));
    card.open();
    assert_arrives(app);
}

fn where_many_buffers_come_back_at_once(app: &mut App) {
    let card = Gate::closed();
    let reads = load_to_a_card_that_is_kept(app, &card);
    let filled = 2 * readers_of_one_load() * READS_OF_A_BUFFER;
    reads.let_pass(filled);
    run_until(app, "full buffers", |_| reads.passed() == PLANNED + filled);
    card.open();
    run_until(app, "readers with buffers again", |_| {
        reads.waiting() >= readers_of_one_load()
    });
    load_to_the_cpu(app);
    assert_eq!(reads.waiting(), readers_of_one_load());
    reads.open();
    assert_arrives(app);
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

fn load_to_the_cpu(app: &mut App) {
    load::<Fake>(app, FakeModel::new("on the CPU").source());
    run_until_state::<Fake>(app, ModelState::Loaded);
}

fn unload_all(app: &mut App) {
    unload_and_wait::<Card>(app);
    unload_and_wait::<Busy>(app);
    unload_and_wait::<Fake>(app);
}

fn unload_and_wait<P: Pipeline>(app: &mut App) {
    app.world_mut().resource_mut::<ModelManager<P>>().unload();
    run_until_state::<P>(app, ModelState::Idle);
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
