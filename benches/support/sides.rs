//! Ways to load a model folder, in a process of its own: each returns its seconds, and where it is measured the most
//! memory that the process took on meanwhile, in bytes.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    fs::File,
    io::Read,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bevy::{
    asset::{AssetLoader, AssetPlugin, LoadContext, io::Reader},
    prelude::*,
};
use bevy_candle::{
    candle::{self, DType, Device, Tensor},
    candle_nn::VarBuilder,
    prelude::*,
};

use super::{
    machine::{peak, resident},
    settings::settings,
    stack::{CONFIG, Layout, Stack, WEIGHTS},
};

/// Bytes of one sequential read.
const READ: usize = 8 << 20;

/// Between two frames of an app that no display paces: thousands of frames a second.
pub const REST: Duration = Duration::from_micros(200);

/// A manager, from the request to Loaded, in an app that rests so long between two frames.
pub fn load_with_manager(folder: &Path, rest: Duration) -> [f64; 2] {
    load_on(DeviceChoice::Cpu, folder, rest)
}

/// The same on some device, which is open by then.
pub fn load_on(device: DeviceChoice, folder: &Path, rest: Duration) -> [f64; 2] {
    let mut app = App::new();
    let settings = CandlePlugin {
        device,
        ..settings()
    };
    app.add_plugins((MinimalPlugins, settings, ModelPlugin::<Stack>::default()));
    start(&mut app);
    run_until(&mut app, REST, |world| {
        world.resource::<ResourceManager>().budget().is_some()
    });
    let before = resident();
    let begun = Instant::now();
    app.world_mut()
        .resource_mut::<ModelManager<Stack>>()
        .load(folder.to_path_buf());
    run_until(&mut app, rest, |world| {
        let manager = world.resource::<ModelManager<Stack>>();
        assert!(manager.last_error.is_none(), "{:?}", manager.last_error);
        manager.current_state.is_loaded()
    });
    let seconds = begun.elapsed().as_secs_f64();
    [seconds, peak().saturating_sub(before) as f64]
}

/// candle's own way: the file is mapped, and each tensor copied out of it.
pub fn load_with_candle(folder: &Path) -> [f64; 2] {
    let begun = Instant::now();
    let tensors = each_tensor_of_candle(folder, &Device::Cpu);
    let seconds = begun.elapsed().as_secs_f64();
    drop(tensors);
    [seconds, 0.0]
}

/// Gets every tensor, as candle does it.
pub fn each_tensor_of_candle(folder: &Path, device: &Device) -> Vec<Tensor> {
    let layout = std::fs::read(folder.join(CONFIG)).expect("the bench has written it");
    let layout: Layout = serde_json::from_slice(&layout).expect("the bench has written it");
    #[expect(unsafe_code, reason = "the other side maps its file")]
    // SAFETY: nobody writes to the file meanwhile.
    let vb = unsafe {
        let files = [folder.join(WEIGHTS)];
        VarBuilder::from_mmaped_safetensors(&files, DType::F32, device)
    };
    let vb = vb.expect("the file is whole");
    let get = |(name, shape): &(String, Vec<usize>)| vb.get(shape.as_slice(), name);
    let tensors: Result<Vec<_>, _> = layout.tensors().map(get).collect();
    tensors.expect("they are all there")
}

/// What plugins do without this crate: the whole file is an asset.
pub fn load_asset(folder: &Path) -> [f64; 2] {
    let mut app = App::new();
    let file_path = folder.to_string_lossy().into_owned();
    app.add_plugins((
        MinimalPlugins,
        AssetPlugin {
            file_path,
            ..default()
        },
    ))
    .init_asset::<Weights>()
    .register_asset_loader(WeightsLoader);
    start(&mut app);
    let begun = Instant::now();
    let handle: Handle<Weights> = app.world().resource::<AssetServer>().load(WEIGHTS);
    run_until(&mut app, REST, |world| {
        let weights = world.resource::<Assets<Weights>>().get(&handle);
        weights.is_some_and(|weights| !weights.0.is_empty())
    });
    [begun.elapsed().as_secs_f64(), 0.0]
}

/// The file in large sequential reads into the same memory again and again.
pub fn read_through(folder: &Path) -> [f64; 2] {
    let mut buffer = vec![0; READ];
    let begun = Instant::now();
    let mut file = File::open(folder.join(WEIGHTS)).expect("the bench has written it");
    while file.read(&mut buffer).expect("the disk works") > 0 {}
    [begun.elapsed().as_secs_f64(), 0.0]
}

/// Starts the app's threads, and lets them settle.
fn start(app: &mut App) {
    app.finish();
    app.cleanup();
    for _ in 0..100 {
        app.update();
    }
}

/// Updates again and again. An app that takes no rest between two frames keeps a core to itself.
fn run_until(app: &mut App, rest: Duration, mut done: impl FnMut(&World) -> bool) {
    while !done(app.world()) {
        app.update();
        if !rest.is_zero() {
            thread::park_timeout(rest);
        }
    }
}

#[derive(Asset, TypePath)]
struct Weights(Vec<Tensor>);

#[derive(TypePath)]
struct WeightsLoader;

impl AssetLoader for WeightsLoader {
    type Asset = Weights;
    type Settings = ();
    type Error = BevyError;

    async fn load(
        &self,
        reader: &mut dyn Reader,
        (): &(),
        _: &mut LoadContext<'_>,
    ) -> Result<Weights, BevyError> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await?;
        let tensors = candle::safetensors::load_buffer(&bytes, &Device::Cpu)?.into_values();
        let cast = tensors.map(|tensor| tensor.to_dtype(DType::F32));
        Ok(Weights(cast.collect::<Result<_, _>>()?))
    }

    fn extensions(&self) -> &[&str] {
        &["safetensors"]
    }
}
