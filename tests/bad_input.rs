//! Bad input ends in a message that a person can act on, and the app runs on.

#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/plan.rs"]
mod plan;
#[path = "bad_input/requests.rs"]
mod requests;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bevy::prelude::*;
use bevy_candle::{prelude::*, test_kit::run_until};
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
    app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()));
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
