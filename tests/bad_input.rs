//! Bad input ends in a message that a person can act on, and the app runs on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bevy::prelude::*;
use bevy_candle::{candle::DType, prelude::*, test_kit::run_until};
use tempfile::TempDir;

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey")
}

/// A copy of a small model, to be broken.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        WEIGHTS,
    ] {
        let target = copy.path().join(name);
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(fixture().join(name), target).expect("a copy");
    }
    copy
}

fn edit(model: &TempDir, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = model.path().join(name);
    let mut json = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    edit(&mut json);
    fs::write(path, json.to_string()).expect("a file");
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()))
        .init_resource::<Ended>();
    app
}

/// What the manager says of a model that fails to load.
#[track_caller]
fn fail(app: &mut App, source: impl Into<ModelSource>) -> &ModelStatus {
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(source);
    run_until(app, "the failure", |world| {
        world.resource::<ModelManager<DdpmPipeline>>().current_state == ModelState::Failed
    });
    app.world().resource::<ModelManager<DdpmPipeline>>()
}

/// Fails to load, with `words` in the message, and the app goes on to load a good model.
#[track_caller]
fn assert_refused(source: impl Into<ModelSource>, words: &[&str]) -> Arc<LoadError> {
    let mut app = app();
    let error = fail(&mut app, source).last_error.clone();
    let error = error.expect("a failed model has a reason");
    let message = ErrorChain(&*error).to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(fixture());
    run_until(&mut app, "a good model", |world| {
        world
            .resource::<ModelManager<DdpmPipeline>>()
            .current_state
            .is_loaded()
    });
    error
}

#[test]
fn a_missing_folder_is_refused() {
    let error = assert_refused(
        "models/nowhere",
        &["models/nowhere", "does not exist", "asset folder"],
    );
    assert!(matches!(*error, LoadError::FolderMissing { .. }));
}

#[test]
fn a_missing_file_is_refused() {
    let model = copy();
    fs::remove_file(model.path().join("unet/config.json")).expect("it was there");
    assert_refused(model.path().to_owned(), &["`unet/config.json` is missing"]);
}

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
fn a_file_that_is_cut_short_is_refused() {
    let model = copy();
    let path = model.path().join(WEIGHTS);
    let bytes = fs::read(&path).expect("weights");
    fs::write(&path, &bytes[..bytes.len() - 1000]).expect("a shorter file");
    let error = assert_refused(model.path().to_owned(), &["cut short", "download it again"]);
    assert!(matches!(*error, LoadError::CutShort { .. }));
}

#[test]
fn a_folder_where_a_file_should_be_is_refused() {
    let model = copy();
    fs::remove_file(model.path().join("unet/config.json")).expect("it was there");
    fs::create_dir(model.path().join("unet/config.json")).expect("a folder");
    assert_refused(model.path().to_owned(), &["unet/config.json"]);
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    struct Forbidden;
    impl Forbidden {
        fn refuse<T>(name: &str) -> Result<T, LoadError> {
            Err(LoadError::Io {
                file: name.into(),
                source: io::ErrorKind::PermissionDenied.into(),
            })
        }
    }
    impl ModelFiles for Forbidden {
        fn names(&self) -> Result<Vec<String>, LoadError> {
            Self::refuse(".")
        }
        fn len(&self, _: &str) -> Result<u64, LoadError> {
            Ok(100)
        }
        fn read_at(&self, name: &str, _: u64, _: &mut [u8]) -> Result<(), LoadError> {
            Self::refuse(name)
        }
    }
    let source = ModelSource::files("forbidden", Arc::new(Forbidden));
    assert_refused(
        source,
        &["failed to read `model_index.json`", "permission denied"],
    );
}

#[test]
fn a_number_format_that_models_cannot_run_in_is_refused() {
    let source = ModelSource::from(fixture()).dtype(DType::U32);
    assert_refused(source, &["U32", "choose F32"]);
}

#[test]
fn a_variant_that_is_broken_is_not_passed_over() {
    let model = copy();
    fs::write(
        model
            .path()
            .join("unet/diffusion_pytorch_model.fp16.safetensors"),
        "no",
    )
    .expect("a file");
    let source = ModelSource::from(model.path().to_owned()).variant("fp16");
    let error = assert_refused(source, &["cut short"]);
    assert!(
        matches!(*error, LoadError::CutShort { found: 2, .. }),
        "{error}"
    );
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

#[derive(Resource, Default)]
struct Ended(Option<Result<DdpmOutput, InferError>>);

/// Ends with an error that has `words` in its message, and the next good request works.
#[track_caller]
fn assert_request_refused(request: DdpmRequest, words: &[&str]) {
    let mut app = app();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(fixture());
    let error = end(&mut app, request).expect_err("the request cannot be served");
    assert!(
        matches!(error, InferError::InvalidRequest { .. }),
        "{error:?}"
    );
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{word:?} is not in {error}"
        );
    }
    let good = DdpmRequest {
        class: Some(0),
        steps: 1,
        ..default()
    };
    end(&mut app, good).expect("the model goes on");
}

fn end(app: &mut App, request: DdpmRequest) -> Result<DdpmOutput, InferError> {
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request))
        .observe(
            |mut done: On<Inferred<DdpmPipeline>>, mut ended: ResMut<Ended>| {
                ended.0 = Some(done.take());
            },
        );
    run_until(app, "the end", |world| {
        world.resource::<Ended>().0.is_some()
    });
    app.world_mut()
        .resource_mut::<Ended>()
        .0
        .take()
        .expect("it was just there")
}

#[test]
fn a_class_out_of_range_is_refused() {
    assert_request_refused(
        DdpmRequest {
            class: Some(3),
            ..default()
        },
        &["`class` is 3", "0 to 2"],
    );
}

#[test]
fn a_class_that_is_needed_and_not_given_is_refused() {
    assert_request_refused(DdpmRequest::default(), &["`class` is None", "0 to 2"]);
}

#[test]
fn zero_steps_and_too_many_are_refused() {
    for steps in [0, 501] {
        let request = DdpmRequest {
            class: Some(0),
            steps,
            ..default()
        };
        assert_request_refused(request, &["`steps` is", "1 to 500"]);
    }
}

#[test]
fn no_pictures_too_many_and_the_wrong_noise_are_refused() {
    let too_many = DdpmRequest {
        class: Some(0),
        batch: u32::MAX,
        ..default()
    };
    assert_request_refused(too_many, &["`batch` is 4294967295"]);
    assert_request_refused(
        DdpmRequest {
            class: Some(0),
            batch: 0,
            ..default()
        },
        &["`batch` is 0"],
    );
    let noise = Some([0.0; 5].into());
    assert_request_refused(
        DdpmRequest {
            class: Some(0),
            noise,
            ..default()
        },
        &["`noise` is 5 numbers", "96 numbers"],
    );
}

#[test]
fn with_nothing_loaded_the_job_says_what_to_do() {
    let error = end(&mut app(), DdpmRequest::default()).expect_err("nothing is loaded");
    assert!(
        error
            .to_string()
            .contains("call `ModelManager::load` first"),
        "{error}"
    );
}

#[test]
fn with_a_failed_model_the_job_says_why() {
    let mut app = app();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load("models/nowhere");
    let error = end(&mut app, DdpmRequest::default()).expect_err("the model failed");
    assert!(
        ErrorChain(&error).to_string().contains("models/nowhere"),
        "{}",
        ErrorChain(&error)
    );
}

#[test]
fn a_folder_with_a_pickle_only_says_how_to_convert_it() {
    let model = copy();
    let weights = model.path().join(WEIGHTS);
    fs::rename(&weights, weights.with_extension("bin")).expect("it was there");
    let error = assert_refused(
        model.path().to_owned(),
        &[
            "unet/diffusion_pytorch_model.bin",
            "pickle",
            "`safetensors.torch.save_file`",
        ],
    );
    assert!(matches!(*error, LoadError::Pickle { .. }));
    let message = error.to_string();
    assert!(
        !message.contains("tools/"),
        "a game has no file of this repository: {message}"
    );
}

#[test]
fn an_index_that_leaves_its_folder_is_refused() {
    let model = copy();
    fs::remove_file(model.path().join(WEIGHTS)).expect("it was there");
    let index = r#"{"weight_map": {"conv_in.weight": "../../secret.safetensors"}}"#;
    let name = format!("{WEIGHTS}.index.json");
    fs::write(model.path().join(name), index).expect("a file");
    let error = assert_refused(model.path().to_owned(), &["../../secret.safetensors"]);
    assert!(matches!(*error, LoadError::UnsafeName { .. }));
}

#[test]
fn a_shard_that_lacks_what_its_index_promises_is_refused() {
    let model = copy();
    let weights = model.path().join(WEIGHTS);
    fs::rename(&weights, weights.with_file_name("one.safetensors")).expect("it was there");
    let index =
        r#"{"weight_map": {"conv_in.weight": "one.safetensors", "nothing": "one.safetensors"}}"#;
    let name = format!("{WEIGHTS}.index.json");
    fs::write(model.path().join(name), index).expect("a file");
    assert_refused(model.path().to_owned(), &["`nothing`", "one.safetensors"]);
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

/// A hub's cache: links to files that are named after what is in them.
#[cfg(unix)]
#[test]
fn a_folder_of_links_is_followed() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let blobs = cache.path().join("blobs");
    let snapshot = cache.path().join("snapshots/0123abc");
    fs::create_dir_all(&blobs).expect("a folder");
    let names = [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        WEIGHTS,
    ];
    for (number, name) in names.into_iter().enumerate() {
        let blob = blobs.join(format!("{number:064x}"));
        fs::copy(fixture().join(name), &blob).expect("a copy");
        let link = snapshot.join(name);
        fs::create_dir_all(link.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink(&blob, link).expect("a link");
    }
    let mut app = app();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(snapshot);
    run_until(&mut app, "the model", |world| {
        let manager = world.resource::<ModelManager<DdpmPipeline>>();
        manager.current_state.is_loaded()
    });
}
