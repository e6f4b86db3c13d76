//! How long models stay: time-outs, pins, and parked models that come back without a read.

#[path = "support/kinds.rs"]
mod kinds;
#[path = "residency/parking.rs"]
mod parking;
#[path = "residency/time_outs.rs"]
mod time_outs;

use bevy_candle::{prelude::*, test_kit::FakeModel};
use kinds::*;

#[test]
fn a_pinned_model_is_not_evicted_and_an_unpinned_one_is() {
    let mut app = app(4 * MIB);
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    manager::<0>(&mut app).residency_mut().pinned = true;
    load::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    run_until_kind::<1>(&mut app, ModelState::Failed);
    manager::<0>(&mut app).residency_mut().pinned = false;
    manager::<1>(&mut app).reload();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
}
