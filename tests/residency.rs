//! How long models stay: time-outs, pins, and parked models that come back without a read.

#[path = "support/kinds.rs"]
mod kinds;
#[path = "residency/parking.rs"]
mod parking;
#[path = "residency/time_outs.rs"]
mod time_outs;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel},
};
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

/// The line is looked at in the frame in which the first model may go, and the second is not wanted any more.
#[test]
fn nobody_makes_room_for_a_load_that_an_observer_cancels() {
    let (mut app, gate, _) = busy_app(8 * MIB);
    manager::<1>(&mut app).residency_mut().pinned = true;
    load::<1>(&mut app, &FakeModel::new("b"));
    ask::<2>(&mut app, &FakeModel::new("c"));
    run_until_waiting::<2>(&mut app);
    // Its jobs end at once: it has no model.
    add_kind::<3>(&mut app, ModelPlugin::default());
    app.add_observer(
        |_: On<Inferred<Fake<3>>>, mut late: ResMut<ModelManager<Fake<2>>>| late.cancel(),
    );
    let hopeless = job::<3>(&mut app, steps(1));
    manager::<1>(&mut app).residency_mut().pinned = false;
    assert!(ended(&mut app, hopeless).is_err());
    run_until_kind::<2>(&mut app, ModelState::Idle);
    frames(&mut app, 5);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
    gate.open();
}
