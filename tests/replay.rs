//! What a recorder writes down can be told again, frame by frame, however fast the workers are this time.

use std::time::Duration;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{
        Fake, FakeModel, FakeRequest, Gate, Happening, Logged, News, Place, Recorder,
        RecorderPlugin, Replay, run_until, run_until_state,
    },
};

fn app() -> App {
    app_with(1 << 30)
}

fn app_with(budget: u64) -> App {
    let mut app = App::new();
    app.add_plugins((
        CandlePlugin {
            memory_budget: Some(budget),
            ..default()
        },
        RecorderPlugin::<Fake>::default(),
        RecorderPlugin::<Fake<1>>::default(),
        MinimalPlugins,
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>>::default(),
    ));
    app
}

fn manager<const KIND: usize>(app: &mut App) -> Mut<'_, ModelManager<Fake<KIND>>> {
    app.world_mut().resource_mut()
}

fn recorder<const KIND: usize>(app: &App) -> &Recorder<Fake<KIND>> {
    app.world().resource()
}

fn frames(app: &mut App, count: usize) {
    for _ in 0..count {
        app.update();
    }
}

/// The models that the edges are about.
fn models<const KIND: usize>(app: &App) -> Vec<(Option<ModelId>, u64)> {
    let edges = recorder::<KIND>(app).transitions.iter();
    edges
        .map(|edge| (edge.model_id.clone(), edge.generation))
        .collect()
}

/// Tells the story of both kinds again, and expects the same edges in the same frames.
#[track_caller]
fn assert_replays(recorded: &App) {
    assert_replays_in(recorded, app());
}

#[track_caller]
fn assert_replays_in(recorded: &App, mut again: App) {
    let (first, second) = (recorder::<0>(recorded), recorder::<1>(recorded));
    Replay::default()
        .kind::<Fake>(&first.log)
        .kind::<Fake<1>>(&second.log)
        .run(&mut again);
    let expected = [first.timed_edges(), second.timed_edges()];
    let told = [
        recorder::<0>(&again).timed_edges(),
        recorder::<1>(&again).timed_edges(),
    ];
    assert_eq!(told, expected, "{:?}", first.log);
    assert_eq!(models::<0>(&again), models::<0>(recorded));
    assert_eq!(models::<1>(&again), models::<1>(recorded));
    recorder::<0>(&again).assert_consistent();
}

/// Two kinds, with everything that a game can ask for.
fn eventful(a: &FakeModel, b: &FakeModel, broken: &FakeModel) -> App {
    let mut app = app();
    manager::<0>(&mut app).load(a.source());
    manager::<1>(&mut app).load(broken.source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let request = FakeRequest::default;
    let job = app.world_mut().spawn(Infer::<Fake>::new(request())).id();
    run_until(&mut app, "the job", |world| {
        world.get::<Infer<Fake>>(job).is_none()
    });
    manager::<0>(&mut app).residency_mut().keep_parked = 1;
    manager::<0>(&mut app).load(b.source());
    run_until_state::<Fake>(&mut app, ModelState::Unloading);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    manager::<0>(&mut app).load(a.source());
    frames(&mut app, 1);
    manager::<1>(&mut app).load(b.source());
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    let withdrawn = app.world_mut().spawn(Infer::<Fake>::new(request())).id();
    app.world_mut().despawn(withdrawn);
    manager::<0>(&mut app).reload();
    run_until_state::<Fake>(&mut app, ModelState::Loading);
    manager::<0>(&mut app).cancel();
    manager::<1>(&mut app).unload();
    run_until_state::<Fake>(&mut app, ModelState::Idle);
    run_until_state::<Fake<1>>(&mut app, ModelState::Idle);
    app
}

#[test]
fn a_story_is_told_again_frame_by_frame() {
    let models = ["a", "b"].map(FakeModel::new);
    let broken = FakeModel::new("broken").fail_in(Place::WarmUp);
    let recorded = eventful(&models[0], &models[1], &broken);
    assert!(recorder::<0>(&recorded).timed_edges().len() >= 10);
    for _ in 0..5 {
        assert_replays(&recorded);
    }
}

#[test]
fn a_worker_that_is_faster_in_the_replay_is_heard_in_its_frame() {
    let gate = Gate::closed();
    let model = FakeModel::new("a").gate(Place::Build, &gate);
    let mut slow = app();
    manager::<0>(&mut slow).load(model.source());
    run_until(&mut slow, "the build", |_| gate.waiting() == 1);
    frames(&mut slow, 200);
    gate.open();
    run_until_state::<Fake>(&mut slow, ModelState::Loaded);
    let loaded = recorder::<0>(&slow).timed_edges();
    assert!(loaded[1].0 > 200, "{loaded:?}");
    assert_replays(&slow);
}

#[test]
fn a_worker_that_is_slower_in_the_replay_is_waited_for() {
    let small = FakeModel::new("a").tensors(1, 16);
    let mut fast = app();
    manager::<0>(&mut fast).load(small.source());
    run_until_state::<Fake>(&mut fast, ModelState::Loaded);
    // The same story about a model of 64 MiB.
    let large = FakeModel::new("a").tensors(16, 1 << 20);
    let mut log = recorder::<0>(&fast).log.clone();
    for logged in &mut log {
        if let Happening::Load(source) = &mut logged.what {
            *source = large.source();
        }
    }
    let mut slow = app();
    Replay::default().kind::<Fake>(&log).run(&mut slow);
    assert_eq!(
        recorder::<0>(&slow).timed_edges(),
        recorder::<0>(&fast).timed_edges()
    );
}

#[test]
fn a_cancel_that_comes_just_after_the_result_is_told_the_same_way() {
    for passed in 0..4 {
        let mut recorded = app();
        manager::<0>(&mut recorded).load(FakeModel::new("a").source());
        frames(&mut recorded, passed);
        // Where the worker was faster than the frames, the model stays.
        let is_loaded = manager::<0>(&mut recorded).current_state.is_loaded();
        let end = if is_loaded {
            ModelState::Loaded
        } else {
            ModelState::Idle
        };
        manager::<0>(&mut recorded).cancel();
        run_until_state::<Fake>(&mut recorded, end);
        frames(&mut recorded, 3);
        assert_replays(&recorded);
    }
}

#[test]
fn a_load_that_was_built_as_it_was_cancelled_may_end_earlier_the_next_time() {
    let gate = Gate::closed();
    let model = FakeModel::new("a").gate(Place::Build, &gate);
    let mut recorded = app();
    manager::<0>(&mut recorded).load(model.source());
    run_until(&mut recorded, "the build", |_| gate.waiting() == 1);
    manager::<0>(&mut recorded).cancel();
    run_until_state::<Fake>(&mut recorded, ModelState::Idle);
    // As if the worker had been done before it heard of the cancel.
    let mut log = recorder::<0>(&recorded).log.clone();
    let is_end = |logged: &Logged<Fake>| matches!(logged.what, Happening::News(News::Gone(1)));
    let end = log.iter().position(is_end).expect("the load has ended");
    let mut built = log[end].clone();
    built.what = Happening::News(News::Built(1));
    log.insert(end, built);
    let mut again = app();
    Replay::default().kind::<Fake>(&log).run(&mut again);
    assert_eq!(
        recorder::<0>(&again).timed_edges(),
        recorder::<0>(&recorded).timed_edges()
    );
}

#[test]
fn models_make_room_and_expire_in_the_same_frames() {
    const MODEL: u64 = 1 << 20;
    let model = |id| FakeModel::new(id).tensors(1, MODEL as usize / size_of::<f32>());
    let (a, b) = (model("a"), model("b"));
    let mut recorded = app_with(MODEL);
    manager::<0>(&mut recorded).load(a.source());
    run_until_state::<Fake>(&mut recorded, ModelState::Loaded);
    manager::<1>(&mut recorded).load(b.source());
    run_until_state::<Fake<1>>(&mut recorded, ModelState::Loaded);
    manager::<0>(&mut recorded).settings_mut().value = 7;
    let request = FakeRequest::default();
    recorded.world_mut().spawn(Infer::<Fake>::new(request));
    run_until_state::<Fake>(&mut recorded, ModelState::Loaded);
    manager::<0>(&mut recorded).residency_mut().keep_alive = Some(Duration::ZERO);
    run_until_state::<Fake>(&mut recorded, ModelState::Idle);
    let reasons = |edge: &(u64, ModelState, ModelState, TransitionReason)| edge.3;
    let seen: Vec<_> = recorder::<0>(&recorded)
        .timed_edges()
        .iter()
        .map(reasons)
        .collect();
    for reason in [
        TransitionReason::Evicted,
        TransitionReason::JobRequested,
        TransitionReason::Expired,
    ] {
        assert!(seen.contains(&reason), "{seen:?}");
    }
    for _ in 0..5 {
        assert_replays_in(&recorded, app_with(MODEL));
    }
}
