//! Models of one device take turns, step by step, and a busy one holds up nobody.

use std::time::Duration;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Place, run_until_state, wait_until},
};

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>>::default(),
    ));
    app
}

fn load(app: &mut App, model: &FakeModel) {
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until_state::<Fake>(app, ModelState::Loaded);
}

fn spawn(app: &mut App, request: FakeRequest) {
    app.world_mut().spawn(Infer::<Fake>::new(request));
}

fn steps(steps: u32) -> FakeRequest {
    FakeRequest { steps, ..default() }
}

fn steps_of(model: &FakeModel) -> usize {
    model
        .log()
        .iter()
        .filter(|event| event.place == Place::Infer)
        .count()
}

#[test]
fn two_kinds_take_turns_step_by_step() {
    let mut app = app();
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    load_both(&mut app, &a, &b);
    // Long enough for both to be there, however late the second one is inserted.
    let request = FakeRequest {
        work: Duration::from_micros(200),
        ..steps(200)
    };
    spawn(&mut app, request);
    app.world_mut().spawn(Infer::<Fake<1>>::new(request));
    wait_until("all steps of both", || {
        steps_of(&a) == 200 && steps_of(&b) == 200
    });
    let in_steps = |model: &FakeModel| {
        let log = model.log().into_iter();
        log.filter(|event| event.place == Place::Infer)
    };
    let (mut a, mut b): (Vec<_>, Vec<_>) = (in_steps(&a).collect(), in_steps(&b).collect());
    let start = a[0].time.max(b[0].time);
    let end = a[a.len() - 1].time.min(b[b.len() - 1].time);
    for log in [&mut a, &mut b] {
        log.retain(|event| (start..=end).contains(&event.time));
    }
    assert!(a.len() > 50, "they ran side by side for {} steps", a.len());
    assert!(
        a.len().abs_diff(b.len()) <= 1,
        "{} and {} steps",
        a.len(),
        b.len()
    );
}

#[test]
fn an_unload_and_a_load_do_not_wait_for_the_job_of_another_kind() {
    let mut app = app();
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    load_both(&mut app, &a, &b);
    let endless = FakeRequest {
        steps: u32::MAX,
        work: Duration::from_millis(5),
        ..default()
    };
    app.world_mut().spawn(Infer::<Fake<1>>::new(endless));
    wait_until("a step of b", || steps_of(&b) > 0);
    let before = steps_of(&b);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    let until_idle = steps_of(&b) - before;
    load(&mut app, &a);
    let until_loaded = steps_of(&b) - before - until_idle;
    assert!(until_idle <= 5, "Idle after {until_idle} steps of b");
    assert!(until_loaded <= 25, "Loaded after {until_loaded} steps of b");
}

#[test]
fn a_busy_model_ends_with_its_app() {
    let mut app = app();
    let model = FakeModel::new("a");
    load(&mut app, &model);
    spawn(&mut app, steps(u32::MAX));
    wait_until("a step", || {
        model.log().iter().any(|event| event.place == Place::Infer)
    });
    drop(app);
    wait_until("the drop of the model", || {
        model.log().iter().any(|event| event.place == Place::Drop)
    });
}

fn load_both(app: &mut App, a: &FakeModel, b: &FakeModel) {
    load(app, a);
    app.world_mut()
        .resource_mut::<ModelManager<Fake<1>>>()
        .load(b.source());
    run_until_state::<Fake<1>>(app, ModelState::Loaded);
}
