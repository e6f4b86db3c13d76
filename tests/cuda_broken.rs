//! A card whose driver has given it up is shown as such and not tried again; the CPU goes on.
//!
//! A program of its own: the card is lost to the process.

mod support {
    pub mod card;
}

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, run_until, run_until_state},
};
use support::card::*;

#[test]
fn a_broken_card_is_shown_and_not_tried_again() {
    if !has_card() {
        return;
    }
    let mut app = app(None);
    app.add_plugins(ModelPlugin::<Fake> {
        device: Some(DeviceChoice::Cpu),
        ..default()
    });
    load::<Fake>(&mut app, FakeModel::new("on the CPU").source());
    load_and_wait(&mut app, source("on the card", &[1 << 20]));
    let error = run::<Card>(&mut app, Ask::Break).expect_err("it is broken");
    assert!(error.to_string().contains("failed"), "{error}");
    run_until_state::<Card>(&mut app, ModelState::Failed);
    assert_unusable(&mut app);
    load::<Card>(&mut app, source("another", &[1 << 20]));
    run_until(&mut app, "the other's failure", |world| {
        let manager = world.resource::<ModelManager<Card>>();
        manager.current_state == ModelState::Failed && manager.generation > 1
    });
    assert_unusable(&mut app);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    run::<Fake>(&mut app, FakeRequest::default()).expect("the CPU works");
}

#[track_caller]
fn assert_unusable(app: &mut App) {
    app.update();
    let error = last_error(app);
    assert!(
        matches!(error.as_deref(), Some(LoadError::DeviceUnusable { .. })),
        "{error:?}"
    );
    let memory = app.world().resource::<ResourceManager>();
    let shown = |device: DeviceChoice| {
        let mut devices = memory.devices().iter();
        devices
            .find(|shown| shown.device == device)
            .map(|shown| shown.unusable.is_some())
    };
    assert_eq!(shown(DeviceChoice::Cuda(0)), Some(true));
    assert_eq!(shown(DeviceChoice::Cpu), Some(false));
}
