//! The books can be read from outside, over the Bevy Remote Protocol.

#[path = "../../support/kinds.rs"]
mod kinds;

use bevy::{
    prelude::*,
    reflect::{TypePath, TypeRegistration, serde::ReflectSerializer},
};
use bevy_candle::{
    DeviceMemory, LeastRecentlyUsed, ModelMemory, Residency, ResidentModel, SlotId, Standing,
    ddpm::{
        BetaSchedule, DdpmConfig, PredictionType, SchedulerConfig, TimestepSpacing, UNetConfig,
        VarianceType,
    },
    machine::{Facts, Step},
    prelude::*,
    test_kit::{Fake, FakeModel, Gate, run_until},
};
use bevy_remote::{BrpMessage, BrpSender, RemotePlugin};
use kinds::*;
use serde_json::{Value, json};

fn remote_app() -> App {
    let mut app = app(64 * MIB);
    app.add_plugins(RemotePlugin::default());
    app.update();
    app
}

/// What a tool gets that asks for a resource.
#[track_caller]
fn get<R: TypePath>(app: &mut App) -> Value {
    let (sender, answer) = async_channel::bounded(1);
    let message = BrpMessage {
        method: "world.get_resources".into(),
        params: Some(json!({ "resource": R::type_path() })),
        sender,
    };
    app.world()
        .resource::<BrpSender>()
        .try_send(message)
        .expect("the mailbox has room");
    run_until(app, "the answer", |_| !answer.is_empty());
    let answer = answer.try_recv().expect("it is there");
    answer.expect("the resource can be read")["value"].clone()
}

#[test]
fn a_tool_reads_budgets_bytes_leases_and_uses() {
    let gate = Gate::closed();
    let mut app = remote_app();
    manager::<0>(&mut app).residency_mut().keep_parked = 1;
    load::<0>(&mut app, &FakeModel::new("a"));
    ask::<0>(&mut app, &FakeModel::new("b").gate_steps(&gate));
    run_until(&mut app, "b", |world| {
        world.resource::<ModelManager<Fake>>().model_id == Some("b".into())
            && state::<0>(world).is_loaded()
    });
    let request = bevy_candle::test_kit::FakeRequest {
        memory: MIB,
        ..steps(1)
    };
    let running = job::<0>(&mut app, request);
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    let books = get::<ResourceManager>(&mut app);
    let device = &books["devices"][0];
    assert_eq!(device["device"], "Cpu");
    assert_eq!(device["budget"], 64 * MIB);
    assert_eq!(device["in_use"], 9 * MIB);
    assert_eq!(device["reserved"], MIB);
    assert_eq!(device["parked"], 4 * MIB);
    let models = books["models"].as_array().expect("a list");
    let model = |id: &str| {
        let mut models = models.iter();
        models
            .find(|model| model["model_id"] == id)
            .expect("it is listed")
    };
    assert_eq!(model("a")["standing"], "Parked");
    assert_eq!(model("b")["standing"], "Loaded");
    assert_eq!(model("b")["bytes"], 4 * MIB);
    assert_eq!(model("b")["leases"], 1);
    assert!(
        model("b")["last_used"]["secs"].is_u64(),
        "a time: {}",
        model("b")
    );
    gate.open();
    assert!(ended(&mut app, running).is_ok());
}

#[test]
fn a_tool_reads_a_managers_properties_and_why_it_failed() {
    let mut app = remote_app();
    load::<0>(&mut app, &FakeModel::new("a"));
    manager::<0>(&mut app).residency_mut().keep_parked = 3;
    let manager = get::<ModelManager<Fake>>(&mut app);
    assert_eq!(manager["residency"]["keep_parked"], 3);
    let status = manager["status"].clone();
    assert_eq!(status["current_state"], "Loaded");
    assert_eq!(status["model_id"], "a");
    assert_eq!(status["sample_size"], json!([8, 4]));
    assert_eq!(status["memory"], 4 * MIB);
    assert_eq!(status["progress"]["phase"], "Done");
    ask::<1>(&mut app, &FakeModel::new("huge").tensors(100, 1 << 18));
    run_until_kind::<1>(&mut app, ModelState::Failed);
    let status = get::<ModelManager<Fake<1>>>(&mut app)["status"].clone();
    let error = status["last_error"].as_str().expect("a text");
    assert!(
        error.contains("raise `CandlePlugin::memory_budget`"),
        "{error}"
    );
}

#[test]
fn what_games_read_is_registered() {
    let app = app(64 * MIB);
    let registry = app.world().resource::<AppTypeRegistry>().read();
    fn known<T: 'static>(registry: &bevy::reflect::TypeRegistry) -> Option<&TypeRegistration> {
        registry.get(std::any::TypeId::of::<T>())
    }
    let all = [
        known::<BetaSchedule>(&registry),
        known::<DdpmConfig>(&registry),
        known::<DdpmOutput>(&registry),
        known::<DdpmRequest>(&registry),
        known::<DdpmSettings>(&registry),
        known::<DeviceChoice>(&registry),
        known::<DeviceMemory>(&registry),
        known::<Facts>(&registry),
        known::<LeastRecentlyUsed>(&registry),
        known::<LoadPhase>(&registry),
        known::<ModelId>(&registry),
        known::<ModelManager<Fake>>(&registry),
        known::<ModelMemory>(&registry),
        known::<ModelState>(&registry),
        known::<ModelStatus>(&registry),
        known::<ModelTransition<Fake>>(&registry),
        known::<PredictionType>(&registry),
        known::<Progress>(&registry),
        known::<ReleaseReport>(&registry),
        known::<Residency>(&registry),
        known::<ResidentModel>(&registry),
        known::<ResourceManager>(&registry),
        known::<Sampler>(&registry),
        known::<SchedulerConfig>(&registry),
        known::<SlotId>(&registry),
        known::<Standing>(&registry),
        known::<StateManager>(&registry),
        known::<StateOf<Fake>>(&registry),
        known::<Step>(&registry),
        known::<TimestepSpacing>(&registry),
        known::<TransitionReason>(&registry),
        known::<UNetConfig>(&registry),
        known::<VarianceType>(&registry),
    ];
    assert!(all.iter().all(Option::is_some), "{all:?}");
    let manager = app.world().resource::<ModelManager<Fake>>();
    let text = serde_json::to_value(ReflectSerializer::new(manager, &registry));
    assert!(text.is_ok(), "{text:?}");
    assert_eq!(
        ModelManager::<Fake>::short_type_path(),
        "ModelManager<Fake>"
    );
}
