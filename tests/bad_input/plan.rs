//! Models that no plan can be made of: by their configuration, their tensors, their numbers or their size.

use bevy_candle::candle::DType;

use super::*;

#[test]
fn broken_json_is_refused() {
    let model = copy();
    fs::write(
        model.path().join("unet/config.json"),
        "{\"sample_size\": 8,\n \"oops",
    )
    .expect("a file");
    assert_refused(model.path().to_owned(), &["unet/config.json", "line 2"]);
}

#[test]
fn a_missing_tensor_is_refused() {
    let model = copy();
    edit(&model, "unet/config.json", |json| {
        json["layers_per_block"] = 2.into();
    });
    let error = assert_refused(model.path().to_owned(), &["resnets.1", "missing", WEIGHTS]);
    assert!(matches!(*error, LoadError::MissingTensor { .. }));
}

#[test]
fn a_wrong_shape_is_refused() {
    let model = copy();
    edit(&model, "unet/config.json", |json| {
        json["num_class_embeds"] = 4.into();
    });
    let error = assert_refused(
        model.path().to_owned(),
        &["class_embedding.weight", "[3, 32]", "[4, 32]"],
    );
    assert!(matches!(*error, LoadError::WrongShape { .. }));
}

#[test]
fn an_unknown_option_is_refused() {
    let model = copy();
    edit(&model, "unet/config.json", |json| {
        json["warp_drive"] = "on".into();
    });
    assert_refused(
        model.path().to_owned(),
        &["unet/config.json", "`warp_drive` is \"on\""],
    );
}

#[test]
fn an_option_that_is_not_implemented_is_refused() {
    let model = copy();
    edit(&model, "scheduler/scheduler_config.json", |json| {
        json["use_flow_sigmas"] = true.into();
    });
    assert_refused(
        model.path().to_owned(),
        &[
            "scheduler/scheduler_config.json",
            "`use_flow_sigmas` is true",
        ],
    );
}

#[test]
fn a_number_format_that_models_cannot_run_in_is_refused() {
    let source = ModelSource::from(fixture()).dtype(DType::U32);
    assert_refused(source, &["U32", "choose F32"]);
}

#[test]
fn a_number_format_that_the_cpu_does_not_multiply_is_refused_before_a_weight_is_read() {
    let source = ModelSource::from(fixture()).dtype(DType::BF16);
    let error = assert_refused(source.clone(), &["BF16; on the CPU choose F32, F16 or F64"]);
    assert!(matches!(*error, LoadError::UnsupportedRunDtype { .. }));
    let mut app = app();
    let progress = fail(&mut app, source).progress;
    assert_eq!(
        (progress.phase, progress.done),
        (LoadPhase::Planning, 0),
        "it was found out in the plan"
    );
}

#[test]
fn a_number_format_that_is_no_float_is_refused() {
    let source = ModelSource::from(fixture()).dtype(DType::U8);
    let error = assert_refused(source, &["U8; choose F32, F16, BF16 or F64"]);
    assert!(matches!(*error, LoadError::UnsupportedRunDtype { .. }));
}

#[test]
fn a_size_that_no_memory_holds_is_refused() {
    let model = copy();
    edit(&model, "unet/config.json", |json| {
        json["sample_size"] = 1_000_000_000.into();
    });
    assert_refused(model.path().to_owned(), &["`sample_size` is"]);
    let model = copy();
    edit(&model, "unet/config.json", |json| {
        json["block_out_channels"] = [1_u64 << 41, 16].to_vec().into();
    });
    assert_refused(model.path().to_owned(), &["`block_out_channels` is"]);
}

#[test]
fn a_model_that_is_larger_than_the_budget_is_refused() {
    let mut app = app();
    app.add_plugins(CandlePlugin {
        memory_budget: Some(1000),
        ..default()
    });
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(fixture());
    run_until(&mut app, "the failure", |world| {
        world.resource::<ModelManager<DdpmPipeline>>().current_state == ModelState::Failed
    });
    let error = app
        .world()
        .resource::<ModelManager<DdpmPipeline>>()
        .last_error
        .clone()
        .expect("a reason");
    assert!(
        matches!(*error, LoadError::OverBudget { needed, budget: 1000, in_use: 0 } if needed > 100_000),
        "{error}"
    );
}
