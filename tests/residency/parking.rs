//! Models that are switched away from keep their memory, until somebody needs it.

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    ModelKinds, ModelRequest, Standing,
    prelude::*,
    test_kit::{FakeModel, Gate, Place, run_until},
};

use crate::kinds::*;

fn parking(budget: u64, keep_parked: usize) -> App {
    let mut app = app(budget);
    manager::<0>(&mut app).residency_mut().keep_parked = keep_parked;
    app
}

fn parked(app: &App) -> Vec<String> {
    let memory = app.world().resource::<ResourceManager>();
    let parked = memory.models().iter();
    let parked = parked.filter(|model| model.standing == Standing::Parked);
    parked.map(|model| model.model_id.to_string()).collect()
}

#[test]
fn switching_back_takes_the_ordinary_edges_one_frame_each_and_reads_nothing() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    // As many reads as its tensors need once: a second load would stand at the gate for ever.
    let reads = Gate::closed();
    reads.let_pass(4);
    let a = a.gate_reads(&reads);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    assert_eq!(parked(&app), ["a"]);
    let device = app.world().resource::<ResourceManager>().devices()[0].clone();
    assert_eq!((device.in_use, device.parked), (8 * MIB, 4 * MIB));
    let done = a.log().len();
    ask::<0>(&mut app, &a);
    let shown: Vec<_> = (0..4)
        .map(|_| {
            app.update();
            state::<0>(app.world())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ModelState::Unloading,
            ModelState::Idle,
            ModelState::Loading,
            ModelState::Loaded
        ]
    );
    assert_eq!(manager::<0>(&mut app).sample_size, Some(UVec2::new(8, 4)));
    assert_eq!(manager::<0>(&mut app).generation, 3);
    assert_eq!(parked(&app), ["b"]);
    assert_eq!(a.log().len(), done, "nothing was built");
    let works = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, works).is_ok());
    assert_eq!(
        reasons::<0>(&app),
        [
            R::LoadRequested,
            R::LoadCompleted,
            R::Superseded,
            R::UnloadCompleted,
            R::LoadRequested,
            R::LoadCompleted,
            R::Superseded,
            R::UnloadCompleted,
            R::LoadRequested,
            R::LoadCompleted,
        ]
    );
}

#[test]
fn the_jobs_of_a_parked_model_end_and_its_memory_stays() {
    let gate = Gate::closed();
    let (a, b) = (FakeModel::new("a").gate_steps(&gate), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    let (running, queued) = (job::<0>(&mut app, steps(1)), job::<0>(&mut app, steps(1)));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    ask::<0>(&mut app, &b);
    assert!(matches!(
        ended(&mut app, running),
        Err(InferError::Unloaded)
    ));
    assert!(matches!(ended(&mut app, queued), Err(InferError::Unloaded)));
    run_until(&mut app, "b", |world| state::<0>(world).is_loaded());
    assert_eq!(parked(&app), ["a"]);
    gate.open();
    load::<0>(&mut app, &a);
    let works = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, works).is_ok());
}

#[test]
fn parked_models_go_first_and_the_load_never_exceeds_the_budget() {
    let (a, b, c) = (
        FakeModel::new("a"),
        FakeModel::new("b"),
        FakeModel::new("c"),
    );
    let mut app = parking(12 * MIB, 2);
    load::<1>(&mut app, &c);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    assert_eq!(parked(&app), ["a"]);
    let d = FakeModel::new("d");
    load::<2>(&mut app, &d);
    assert!(parked(&app).is_empty(), "what is parked goes first");
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
    let dropped = a
        .log()
        .iter()
        .filter(|event| event.place == Place::Drop)
        .count();
    assert_eq!(dropped, 1);
}

#[test]
fn only_so_many_are_parked_and_the_oldest_goes() {
    let models = ["a", "b", "c", "d"].map(FakeModel::new);
    let mut app = parking(64 * MIB, 2);
    for model in &models {
        switch::<0>(&mut app, model);
    }
    assert_eq!(parked(&app), ["b", "c"]);
    run_until(&mut app, "the bytes of a", |world| {
        world.resource::<ResourceManager>().in_use() == 12 * MIB
    });
    manager::<0>(&mut app).residency_mut().keep_parked = 1;
    run_until(&mut app, "the bytes of b", |world| {
        world.resource::<ResourceManager>().in_use() == 8 * MIB
    });
    assert_eq!(parked(&app), ["c"]);
}

#[test]
fn unload_takes_the_parked_models_along_and_idle_waits_for_them() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    app.update();
    assert!(
        app.world()
            .resource::<ResourceManager>()
            .models()
            .is_empty()
    );
}

#[test]
fn a_reload_of_one_model_leaves_the_parked_ones_alone() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    let built = |model: &FakeModel| {
        let log = model.log();
        log.iter()
            .filter(|event| event.place == Place::Build)
            .count()
    };
    manager::<0>(&mut app).reload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    assert_eq!((built(&a), built(&b)), (1, 2));
    assert_eq!(parked(&app), ["a"], "a reload of b leaves a alone");
    let manager = manager::<0>(&mut app);
    let kept: Vec<_> = manager.pipeline().parked().collect();
    assert_eq!(kept, [a.source().id()]);
    assert_eq!(manager.pipeline().id(), Some(&b.source().id()));
}

#[test]
fn a_reload_reads_a_parked_model_again() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &b);
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    manager::<0>(&mut app).cancel();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(parked(&app), ["a"], "a cancel leaves parked models alone");
    let kind = app.world().resource::<ModelKinds>().iter().next();
    let kind = kind.expect("a plugin lists its kind");
    assert!(
        kind.can(app.world(), ModelRequest::Unload),
        "the memory of parked models can be asked for"
    );
    manager::<0>(&mut app).reload();
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    let log = a.log();
    let built = log.iter().filter(|event| event.place == Place::Build);
    assert_eq!(built.count(), 2);
}

#[test]
fn the_app_ends_with_parked_models_and_without_a_byte() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    app.world_mut().write_message(AppExit::Success);
    app.update();
    assert_eq!(in_use(&app), 0);
    assert_eq!(state::<0>(app.world()), ModelState::Idle);
    for model in [a, b] {
        let log = model.log();
        assert!(log.iter().any(|event| event.place == Place::Drop));
    }
}

#[test]
fn idle_waits_for_a_model_that_was_to_be_parked_and_is_unloaded_instead() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Drop, &gate);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &FakeModel::new("b"));
    run_until_kind::<0>(&mut app, ModelState::Unloading);
    manager::<0>(&mut app).unload();
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Unloading);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    assert!(manager::<0>(&mut app).last_release.is_some());
}

#[test]
fn a_failed_manager_is_reset_when_the_memory_of_its_parked_models_is_back() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate(Place::Drop, &gate);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &a);
    ask::<0>(&mut app, &FakeModel::new("b").fail_in(Place::Plan));
    run_until_kind::<0>(&mut app, ModelState::Failed);
    assert_eq!(parked(&app), ["a"]);
    manager::<0>(&mut app).unload();
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Failed);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
}

#[test]
fn a_lowered_budget_takes_parked_models_first() {
    let (a, b) = (FakeModel::new("a"), FakeModel::new("b"));
    let mut app = parking(8 * MIB, 1);
    load::<0>(&mut app, &a);
    switch::<0>(&mut app, &b);
    lower_budget(&mut app, 4 * MIB);
    run_until(&mut app, "the bytes", |world| {
        world.resource::<ResourceManager>().in_use() == 4 * MIB
    });
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
}

#[test]
fn idle_shows_when_a_parked_model_that_goes_has_given_its_memory_back() {
    let gate = Gate::closed();
    let x = FakeModel::new("x").gate(Place::Drop, &gate);
    let mut app = parking(64 * MIB, 1);
    load::<0>(&mut app, &x);
    switch::<0>(&mut app, &FakeModel::new("a"));
    ask::<0>(&mut app, &FakeModel::new("b"));
    run_until(&mut app, "the end of x", |_| gate.waiting() == 1);
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Unloading);
    gate.open();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 4 * MIB, "that of a");
    run_until_kind::<0>(&mut app, ModelState::Loaded);
}
