//! A card that lends no buffers for a while does not hold up loads to the CPU, which share the readers of the process.

mod support {
    pub mod card;
}

use std::sync::Arc;

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

/// Keeps the card's thread.
type Busy = Fake<1>;

#[test]
fn loads_to_the_cpu_go_on_while_a_card_lends_no_buffers() {
    if !has_card() {
        return;
    }
    let mut app = app(None);
    app.add_plugins((
        ModelPlugin::<Busy>::default(),
        ModelPlugin::<Fake> {
            device: Some(DeviceChoice::Cpu),
            ..default()
        },
    ));
    let card = Gate::closed();
    let busy = FakeModel::new("busy").block_in(Place::Infer, &card);
    load::<Busy>(&mut app, busy.source());
    run_until_state::<Busy>(&mut app, ModelState::Loaded);
    let reads = readers_with_buffers(&mut app);
    let job = Infer::<Busy>::new(FakeRequest::default());
    app.world_mut().spawn(job);
    run_until(&mut app, "the card's thread", |_| card.waiting() == 1);
    reads.open();
    load::<Fake>(&mut app, FakeModel::new("on the CPU").source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let state = app.world().resource::<ModelManager<Card>>().current_state;
    assert_eq!((state, card.waiting()), (ModelState::Loading, 1));
    card.open();
    run_until_state::<Card>(&mut app, ModelState::Loaded);
    let found = run::<Card>(&mut app, Ask::Values).expect("values");
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
