//! What a game tests: a load, a failure, a slow load, a despawned job, and the end of the app.

use bevy::{app::AppExit, prelude::*};
use bevy_candle::prelude::*;
use bevy_candle::test_kit::{Fake, FakeModel, Gate, Place, run_until};
use testing::{Anvil, Smithy, SmithyPlugin};

fn app(model: &FakeModel) -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, SmithyPlugin::<Fake>::default()));
    let mut manager = app.world_mut().resource_mut::<ModelManager<Fake>>();
    manager.load(model.source());
    app
}

fn run_until_smithy(app: &mut App, what: &str, is: fn(&Smithy) -> bool) {
    run_until(app, what, |world| is(world.resource::<Smithy>()));
}

#[test]
fn a_loaded_model_makes_a_sword_and_ends_with_the_app() {
    let model = FakeModel::new("smith");
    let mut app = app(&model);
    run_until_smithy(&mut app, "a sword", |smithy| smithy.swords == 1);
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert!(model.log().iter().any(|event| event.place == Place::Drop));
}

#[test]
fn a_broken_model_makes_an_excuse() {
    let mut app = app(&FakeModel::new("smith").fail_in(Place::Build));
    run_until_smithy(&mut app, "an excuse", |smithy| smithy.excuses.len() == 1);
}

#[test]
fn a_slow_model_makes_a_sword_when_it_is_ready() {
    let gate = Gate::closed();
    let mut app = app(&FakeModel::new("smith").gate_reads(&gate));
    run_until(&mut app, "a reader at the gate", |_| gate.waiting() == 1);
    assert_eq!(app.world().resource::<Smithy>().swords, 0);
    gate.open();
    run_until_smithy(&mut app, "a sword", |smithy| smithy.swords == 1);
}

#[test]
fn a_sword_that_nobody_waits_for_is_not_made() {
    let gate = Gate::closed();
    let mut app = app(&FakeModel::new("smith").gate_steps(&gate));
    run_until(&mut app, "the first step", |_| gate.waiting() == 1);
    let mut anvils = app.world_mut().query_filtered::<Entity, With<Anvil>>();
    let anvil = anvils.single(app.world()).expect("one job");
    app.world_mut().despawn(anvil);
    run_until(&mut app, "the job's end", |_| gate.waiting() == 0);
    assert_eq!(app.world().resource::<Smithy>().swords, 0);
}
