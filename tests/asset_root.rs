//! Relative model paths start at the app's asset folder, as Bevy finds it.
//!
//! The environment and the place of the program decide, so each test runs this program again as a child.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use bevy::prelude::*;
use bevy_candle::{ErrorChain, LoaderService, prelude::*, test_kit::run_until};
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// Tells a child which plugins to use.
const CHILD: &str = "BEVY_CANDLE_ASSET_ROOT_CHILD";

/// Says where the child has to find the model.
const EXPECTED: &str = "BEVY_CANDLE_ASSET_ROOT_EXPECTED";

/// The small model that is copied to wherever it should be found.
const MODEL: &str = "models/tiny";

fn main() -> ExitCode {
    if let Ok(plugins) = std::env::var(CHILD) {
        return child(&plugins);
    }
    let trials = vec![
        Trial::test("bevy_asset_root_counts", || bevy_asset_root("default")),
        Trial::test("an_app_without_asset_plugin_finds_the_same_folder", || {
            bevy_asset_root("none")
        }),
        Trial::test("the_file_path_of_asset_plugin_counts", file_path),
        Trial::test(
            "an_asset_plugin_that_comes_later_counts",
            asset_plugin_later,
        ),
        Trial::test("in_development_the_package_folder_counts", package_folder),
        Trial::test("a_packaged_game_finds_the_assets_beside_it", packaged),
        Trial::test("an_absolute_path_is_taken_as_it_is", absolute),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn bevy_asset_root(plugins: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "assets")?;
    run(
        &mut this(),
        plugins,
        &assets,
        &[("BEVY_ASSET_ROOT", root.path())],
    )
}

fn file_path() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "content")?;
    run(
        &mut this(),
        "content",
        &assets,
        &[("BEVY_ASSET_ROOT", root.path())],
    )
}

fn asset_plugin_later() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "content")?;
    run(
        &mut this(),
        "content later",
        &assets,
        &[("BEVY_ASSET_ROOT", root.path())],
    )
}

fn package_folder() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "assets")?;
    run(
        &mut this(),
        "default",
        &assets,
        &[("CARGO_MANIFEST_DIR", root.path())],
    )
}

fn packaged() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "assets")?;
    let game = root
        .path()
        .join("game")
        .with_extension(std::env::consts::EXE_EXTENSION);
    fs::copy(std::env::current_exe()?, &game)?;
    run(&mut Command::new(game), "default", &assets, &[])
}

fn absolute() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let assets = install(&root, "elsewhere")?;
    let model = assets.join(MODEL);
    let mut command = this();
    command.env("BEVY_CANDLE_ASSET_ROOT_MODEL", model);
    // The app's own folder is another one, and empty.
    let empty = tempfile::tempdir()?;
    run(
        &mut command,
        "default",
        &empty.path().join("assets"),
        &[("BEVY_ASSET_ROOT", empty.path())],
    )
}

fn this() -> Command {
    Command::new(std::env::current_exe().expect("a test has a program"))
}

/// Copies the small model into an asset folder.
fn install(root: &TempDir, folder: &str) -> std::io::Result<PathBuf> {
    let assets = root.path().join(folder);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    for name in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        weights,
    ] {
        let target = assets.join(MODEL).join(name);
        fs::create_dir_all(target.parent().expect("a folder"))?;
        fs::copy(fixture.join(name), target)?;
    }
    Ok(assets)
}

fn run(
    command: &mut Command,
    plugins: &str,
    expected: &Path,
    env: &[(&str, &Path)],
) -> Result<(), Failed> {
    command
        .env_remove("BEVY_ASSET_ROOT")
        .env_remove("CARGO_MANIFEST_DIR");
    command
        .env(CHILD, plugins)
        .env(EXPECTED, expected)
        .envs(env.iter().copied());
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(said.concat().into())
}

fn child(plugins: &str) -> ExitCode {
    let content = || AssetPlugin {
        file_path: "content".into(),
        ..default()
    };
    let mut app = App::new();
    app.add_plugins(MinimalPlugins);
    match plugins {
        "default" => app.add_plugins(AssetPlugin::default()),
        "content" => app.add_plugins(content()),
        _ => &mut app,
    };
    app.add_plugins(ModelPlugin::<DdpmPipeline>::default());
    if plugins == "content later" {
        app.add_plugins(content());
    }
    app.finish();
    app.cleanup();
    let root = app.world().resource::<LoaderService>().root().to_owned();
    let expected = PathBuf::from(std::env::var_os(EXPECTED).expect("the parent says"));
    // A temporary folder may lie behind a link.
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    assert_eq!(real(root), real(expected));
    let model = std::env::var("BEVY_CANDLE_ASSET_ROOT_MODEL").unwrap_or_else(|_| MODEL.into());
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(model);
    run_until(&mut app, "the end of the load", |world| {
        let manager = world.resource::<ModelManager<DdpmPipeline>>();
        matches!(
            manager.current_state,
            ModelState::Loaded | ModelState::Failed
        )
    });
    let manager = app.world().resource::<ModelManager<DdpmPipeline>>();
    if let Some(error) = &manager.last_error {
        panic!("{}", ErrorChain(&**error));
    }
    ExitCode::SUCCESS
}
