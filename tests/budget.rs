//! Models and their jobs share a budget: who fits, who waits, who makes room, who is refused.

mod support {
    pub mod kinds;
}

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    EvictionPolicy, ModelKind, ModelKinds, ResidentModel, Standing,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place, run_until},
};
use support::kinds::*;

fn models() -> [FakeModel; 3] {
    ["a", "b", "c"].map(FakeModel::new)
}

#[test]
fn the_least_recently_used_model_makes_room_and_is_still_wanted() {
    let [a, b, c] = models();
    let mut app = app(8 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    let used = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, used).is_ok());
    load::<2>(&mut app, &c);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(
        reasons::<1>(&app),
        [
            R::LoadRequested,
            R::LoadCompleted,
            R::Evicted,
            R::UnloadCompleted
        ]
    );
    assert_eq!(manager::<1>(&mut app).wanted, Some("b".into()));
    assert_eq!(in_use(&app), 8 * MIB);
    frames(&mut app, 30);
    assert_eq!(
        state::<1>(app.world()),
        ModelState::Idle,
        "nothing but a job or a load brings it back"
    );
}

#[test]
fn a_job_brings_an_evicted_model_back() {
    let [a, b, _] = models();
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    let back = job::<0>(&mut app, steps(2));
    assert!(ended(&mut app, back).is_ok());
    assert_eq!(
        reasons::<0>(&app)[2..],
        [
            R::Evicted,
            R::UnloadCompleted,
            R::JobRequested,
            R::LoadCompleted
        ]
    );
    assert_eq!(reasons::<1>(&app)[2..], [R::Evicted, R::UnloadCompleted]);
}

#[test]
fn a_new_load_brings_an_evicted_model_back() {
    let [a, b, _] = models();
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    load::<0>(&mut app, &a);
    assert_eq!(
        reasons::<0>(&app)[2..],
        [
            R::Evicted,
            R::UnloadCompleted,
            R::LoadRequested,
            R::LoadCompleted
        ]
    );
}

#[test]
fn an_evicted_model_that_is_not_wanted_any_more_stays_away() {
    let [a, b, _] = models();
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    manager::<0>(&mut app).unload();
    let late = job::<0>(&mut app, steps(1));
    assert!(matches!(ended(&mut app, late), Err(InferError::NotLoaded)));
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
}

#[test]
fn a_load_that_no_eviction_can_help_is_refused_before_anybody_goes() {
    let [a, b, _] = models();
    let mut app = app(10 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    ask::<2>(&mut app, &FakeModel::new("large").tensors(11, 1 << 18));
    run_until_kind::<2>(&mut app, ModelState::Failed);
    let error = manager::<2>(&mut app).last_error.clone();
    assert!(
        matches!(
            error.as_deref(),
            Some(LoadError::OverBudget { needed, budget, in_use })
                if (*needed, *budget, *in_use) == (11 * MIB, 10 * MIB, 8 * MIB)
        ),
        "{error:?}"
    );
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
}

#[test]
fn exactly_the_budget_fits_and_one_byte_less_does_not() {
    let a = FakeModel::new("a");
    let mut app = app(4 * MIB);
    load::<0>(&mut app, &a);
    assert_eq!(in_use(&app), 4 * MIB);
    let mut app = support::kinds::app(4 * MIB - 1);
    ask::<0>(&mut app, &a);
    run_until_kind::<0>(&mut app, ModelState::Failed);
    assert_eq!(in_use(&app), 0);
}

#[test]
fn a_load_waits_for_a_job_and_then_takes_its_models_place() {
    let [_, b, _] = models();
    let (mut app, gate, running) = busy_app(4 * MIB);
    ask::<1>(&mut app, &b);
    run_until_waiting::<1>(&mut app);
    let later = job::<0>(&mut app, steps(1));
    frames(&mut app, 20);
    let leased = &app.world().resource::<ResourceManager>().models()[0];
    assert_eq!((leased.leases, leased.standing), (1, Standing::Loaded));
    assert!(end(app.world(), running).is_none(), "a lease is kept");
    gate.open();
    assert!(ended(&mut app, running).is_ok());
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert!(
        end(app.world(), later).is_none(),
        "a model that makes room gets no new jobs"
    );
    assert!(ended(&mut app, later).is_ok());
    assert_eq!(
        reasons::<0>(&app)[2..],
        [
            R::Evicted,
            R::UnloadCompleted,
            R::JobRequested,
            R::LoadCompleted
        ]
    );
}

#[test]
fn a_job_waits_until_its_working_memory_fits() {
    let [_, b, _] = models();
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate_steps(&gate);
    let mut app = app(12 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    let three = FakeRequest {
        memory: 3 * MIB,
        ..steps(1)
    };
    let first = job::<0>(&mut app, three);
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    assert_eq!(in_use(&app), 11 * MIB);
    app.update();
    let device = app.world().resource::<ResourceManager>().devices()[0].clone();
    assert_eq!(device.reserved, 3 * MIB, "a job's memory is reserved");
    let second = job::<1>(&mut app, three);
    run_until_in_line(&mut app);
    frames(&mut app, 20);
    assert!(end(app.world(), second).is_none());
    gate.open();
    assert!(ended(&mut app, first).is_ok());
    assert!(ended(&mut app, second).is_ok());
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
}

#[test]
fn a_job_evicts_an_idle_model_and_never_its_own() {
    let [a, b, _] = models();
    let mut app = app(10 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    let large = FakeRequest {
        memory: 6 * MIB,
        ..steps(1)
    };
    let done = job::<0>(&mut app, large);
    assert!(ended(&mut app, done).is_ok());
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(reasons::<1>(&app)[2..], [R::Evicted, R::UnloadCompleted]);
    let larger = FakeRequest {
        memory: 6 * MIB + 1,
        ..steps(1)
    };
    let refused = job::<0>(&mut app, larger);
    let error = ended(&mut app, refused);
    assert!(
        matches!(error, Err(InferError::OverBudget { needed, budget, in_use })
            if (needed, budget, in_use) == (6 * MIB + 1, 10 * MIB, 4 * MIB)),
        "{error:?}"
    );
    let next = job::<0>(&mut app, steps(1));
    assert!(ended(&mut app, next).is_ok(), "the model goes on");
}

#[test]
fn a_higher_priority_stays_longer() {
    let [a, b, c] = models();
    let mut app = app(8 * MIB);
    manager::<0>(&mut app).residency_mut().priority = 1;
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    load::<2>(&mut app, &c);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Idle);
}

#[test]
fn a_game_chooses_who_goes() {
    /// Lets the most recently used go.
    #[derive(Debug)]
    struct NewestFirst;
    impl EvictionPolicy for NewestFirst {
        fn next_victim(&self, shortage: u64, candidates: &[ResidentModel]) -> Option<usize> {
            assert_eq!(shortage, 4 * MIB);
            (0..candidates.len()).max_by_key(|i| candidates[*i].last_used)
        }
    }
    let [a, b, c] = models();
    let mut app = app(8 * MIB);
    app.world_mut()
        .resource_mut::<ResourceManager>()
        .set_eviction_policy(NewestFirst);
    load::<0>(&mut app, &a);
    frames(&mut app, 3);
    load::<1>(&mut app, &b);
    load::<2>(&mut app, &c);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    assert_eq!(state::<1>(app.world()), ModelState::Idle);
}

#[test]
fn a_lowered_budget_makes_idle_models_go_and_busy_ones_after_their_jobs() {
    let [_, b, c] = models();
    let gate = Gate::closed();
    let a = FakeModel::new("a").gate_steps(&gate);
    let mut app = app(12 * MIB);
    load::<0>(&mut app, &a);
    load::<1>(&mut app, &b);
    load::<2>(&mut app, &c);
    manager::<2>(&mut app).residency_mut().pinned = true;
    let running = job::<0>(&mut app, steps(1));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    lower_budget(&mut app, 3 * MIB);
    run_until_kind::<1>(&mut app, ModelState::Idle);
    frames(&mut app, 10);
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
    gate.open();
    assert!(ended(&mut app, running).is_ok());
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(
        state::<2>(app.world()),
        ModelState::Loaded,
        "what is pinned stays"
    );
    ask::<0>(&mut app, &a);
    run_until_kind::<0>(&mut app, ModelState::Failed);
}

#[test]
fn the_books_show_every_byte() {
    let [a, b, _] = models();
    let gate = Gate::closed();
    let mut app = app(20 * MIB);
    load::<0>(&mut app, &a);
    ask::<1>(&mut app, &b.clone().gate_reads(&gate));
    run_until(&mut app, "the readers", |_| gate.waiting() > 0);
    app.update();
    let memory = app.world().resource::<ResourceManager>();
    let [device] = memory.devices() else {
        panic!("one device: {:?}", memory.devices())
    };
    assert_eq!(device.device, DeviceChoice::Cpu);
    assert_eq!(device.budget, Some(20 * MIB));
    assert_eq!((device.in_use, device.reserved), (8 * MIB, 4 * MIB));
    let shown: Vec<_> = memory
        .models()
        .iter()
        .map(|model| (model.model_id.as_str(), model.bytes, model.standing))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", 4 * MIB, Standing::Loaded),
            ("b", 4 * MIB, Standing::Loading)
        ]
    );
    gate.open();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    let memory = app.world().resource::<ResourceManager>();
    assert_eq!(memory.models().len(), 1);
    assert_eq!(memory.devices()[0].in_use, 4 * MIB);
}

#[test]
fn the_books_name_a_kind_as_everything_else_does() {
    let mut app = app(4 * MIB);
    load::<1>(&mut app, &FakeModel::new("a"));
    let world = app.world();
    let slot = world.resource::<ModelManager<Fake<1>>>().slot();
    let [model] = world.resource::<ResourceManager>().models() else {
        panic!("one model is loaded")
    };
    let mut kinds = world.resource::<ModelKinds>().iter();
    let kind = kinds.find(|kind| kind.slot(world) == Some(slot));
    assert_eq!(Some(&*model.kind), kind.map(ModelKind::name));
    assert_eq!(model.kind, "Fake<1>");
}

#[test]
fn without_a_setting_the_budget_is_measured() {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()));
    let [a, ..] = models();
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(a.source());
    run_until(&mut app, "the model", |world| state::<0>(world).is_loaded());
    let memory = app.world().resource::<ResourceManager>();
    let budget = memory.budget().expect("a measured budget");
    assert!(budget > 64 * MIB && budget < 1 << 50, "{budget}");
    assert_eq!(memory.devices()[0].budget, Some(budget));
}

#[test]
fn a_model_whose_device_cannot_be_opened_fails_and_the_others_go_on() {
    let [a, b, _] = models();
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        ModelPlugin::<Fake>::default(),
        ModelPlugin::<Fake<1>> {
            device: Some(DeviceChoice::Metal(7)),
            ..default()
        },
    ));
    app.finish();
    app.cleanup();
    ask::<0>(&mut app, &a);
    ask::<1>(&mut app, &b);
    run_until_kind::<1>(&mut app, ModelState::Failed);
    run_until_kind::<0>(&mut app, ModelState::Loaded);
    let error = manager::<1>(&mut app).last_error.clone();
    assert!(
        matches!(error.as_deref(), Some(LoadError::Device { device, .. }) if device.contains('7')),
        "{error:?}"
    );
}

#[test]
fn a_load_that_fails_gives_its_room_to_who_waits() {
    let gate = Gate::closed();
    let a = FakeModel::new("a")
        .gate(Place::Build, &gate)
        .fail_in(Place::Build);
    let b = FakeModel::new("b");
    let mut app = app(4 * MIB);
    ask::<0>(&mut app, &a);
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    ask::<1>(&mut app, &b);
    run_until_waiting::<1>(&mut app);
    gate.open();
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    assert_eq!(state::<0>(app.world()), ModelState::Failed);
}
