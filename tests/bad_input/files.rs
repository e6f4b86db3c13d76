//! Folders and files that are missing, broken, or not what they say.

use std::io;

use super::*;

#[test]
fn a_missing_folder_is_refused() {
    let error = assert_refused(
        "models/nowhere",
        &["models/nowhere", "does not exist", "asset folder"],
    );
    assert!(matches!(*error, LoadError::FolderMissing { .. }));
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let model = copy();
    let error = assert_refused(model.path().join(WEIGHTS), &["is no folder"]);
    assert!(matches!(*error, LoadError::FolderMissing { .. }));
}

#[test]
fn a_missing_file_is_refused() {
    let model = copy();
    fs::remove_file(model.path().join("unet/config.json")).expect("it was there");
    assert_refused(model.path().to_owned(), &["`unet/config.json` is missing"]);
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
