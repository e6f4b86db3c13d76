//! A card computes what Python's diffusers do, and one seed makes the CPU's picture.

mod support {
    pub mod card;
}

use std::path::{Path, PathBuf};

use bevy::prelude::*;
use bevy_candle::{
    candle::{Device, Tensor, safetensors},
    prelude::*,
    test_kit::{run_until, run_until_state},
};
use support::card::{has_card, run};

/// The result differs from diffusers' by at most this part of its largest value.
const TOLERANCE: f32 = 1e-3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// What the last step has shown.
#[derive(Resource, Default)]
struct Shown(Option<DdpmOutput>);

fn app(device: DeviceChoice, folder: PathBuf) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            device,
            ..default()
        },
        ModelPlugin::<DdpmPipeline>::default(),
    ));
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(folder);
    run_until_state::<DdpmPipeline>(&mut app, ModelState::Loaded);
    app
}

fn make(device: DeviceChoice, folder: PathBuf, request: DdpmRequest) -> DdpmOutput {
    run::<DdpmPipeline>(&mut app(device, folder), request).expect("pictures")
}

/// Makes pictures, and returns what the last step showed, which is not cut off.
fn show(device: DeviceChoice, folder: PathBuf, request: DdpmRequest) -> DdpmOutput {
    let mut app = app(device, folder);
    app.init_resource::<Shown>();
    let job = Infer::<DdpmPipeline>::new(request).previews_every(2);
    app.world_mut().spawn(job).observe(
        |step: On<InferStep<DdpmPipeline>>, mut shown: ResMut<Shown>| {
            shown.0 = step.partial.clone().or_else(|| shown.0.take());
        },
    );
    run_until(&mut app, "the pictures", |world| {
        let mut jobs = world.query::<&Infer<DdpmPipeline>>();
        jobs.iter(world).next().is_none()
    });
    let shown = app.world_mut().resource_mut::<Shown>().0.take();
    shown.expect("a preview of the last step")
}

fn recorded(tensors: &std::collections::HashMap<String, Tensor>, key: &str) -> Vec<f32> {
    let all = tensors[key].flatten_all();
    all.and_then(|all| all.to_vec1()).expect("numbers")
}

/// Ten steps from the recorded noise.
#[track_caller]
fn assert_parity(name: &str, folder: &str, class: Option<u32>) {
    let file = root().join(format!("tests/fixtures/{name}.parity.safetensors"));
    let tensors = safetensors::load(file, &Device::Cpu).expect("the fixture");
    let request = DdpmRequest {
        class,
        noise: Some(recorded(&tensors, "noise").into()),
        steps: 10,
        batch: 2,
        ..default()
    };
    let made = show(DeviceChoice::Cuda(0), root().join(folder), request);
    let expected = recorded(&tensors, "steps");
    let largest = expected.iter().fold(0_f32, |a, b| a.max(b.abs()));
    let pairs = made.samples.iter().zip(&expected);
    let difference = pairs.fold(0_f32, |largest, (ours, theirs)| {
        largest.max((ours - theirs).abs())
    });
    assert_eq!(made.samples.len(), expected.len());
    assert!(
        difference <= TOLERANCE * largest,
        "{name}: {difference} is more than {TOLERANCE} of {largest}"
    );
}

#[test]
fn the_fixtures_are_those_of_diffusers() {
    if !has_card() {
        return;
    }
    assert!(DeviceChoice::Cuda(0).is_present(), "it computes");
    assert_parity("sprites", "assets/models/sprites", Some(7));
    for (name, class) in [
        ("rgb", None),
        ("grey", Some(2)),
        ("cifar", None),
        ("celebahq", None),
        ("resnet", None),
        ("ncsnpp", None),
        ("timestep", Some(5)),
    ] {
        assert_parity(name, &format!("tests/fixtures/{name}"), class);
    }
}

#[test]
fn one_seed_makes_the_sprite_of_the_cpu() {
    if !has_card() {
        return;
    }
    let request = DdpmRequest {
        class: Some(3),
        seed: 7,
        ..default()
    };
    let folder = root().join("assets/models/sprites");
    let on_card = make(DeviceChoice::Cuda(0), folder.clone(), request.clone());
    let on_cpu = make(DeviceChoice::Cpu, folder, request);
    let bytes = |output: &DdpmOutput| output.images()[0].data.clone().expect("pixels");
    let (on_card, on_cpu) = (bytes(&on_card), bytes(&on_cpu));
    let pairs = on_card.iter().zip(&on_cpu);
    let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max();
    assert_eq!(on_card.len(), on_cpu.len());
    assert!(worst <= Some(2), "{worst:?} of 255");
}
