//! Ten steps of DDIM from recorded noise, through the manager, against Python's diffusers.

use std::path::Path;

use bevy::prelude::*;
use bevy_candle::{
    candle::{DType, Device, safetensors},
    prelude::*,
    test_kit::run_until,
};

/// The result differs from diffusers' by at most this part of its largest value.
const TOLERANCE: f32 = 1e-3;

#[derive(Resource, Default)]
struct Made(Option<Result<DdpmOutput, InferError>>);

fn make(source: impl Into<ModelSource>, request: DdpmRequest) -> DdpmOutput {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()))
        .init_resource::<Made>();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(source);
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request))
        .observe(
            |mut done: On<Inferred<DdpmPipeline>>, mut made: ResMut<Made>| {
                made.0 = Some(done.take());
            },
        );
    run_until(&mut app, "the pictures", |world| {
        world.resource::<Made>().0.is_some()
    });
    let made = app.world_mut().resource_mut::<Made>().0.take();
    made.expect("it was just there").expect("pictures")
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

#[track_caller]
fn assert_parity(name: &str, folder: &str, class: Option<u32>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recorded = root.join(format!("tests/fixtures/{name}.parity.safetensors"));
    let recorded = safetensors::load(recorded, &Device::Cpu).expect("the fixture");
    let values = |key: &str| {
        recorded[key]
            .flatten_all()
            .and_then(|all| all.to_vec1::<f32>())
            .expect("numbers")
    };
    let noise = Some(values("noise").into());
    let output = make(
        root.join(folder),
        DdpmRequest {
            class,
            noise,
            steps: 10,
            batch: 2,
            ..default()
        },
    );
    assert_eq!(output.shape, recorded["ddim"].dims());
    let expected = values("ddim");
    let difference = largest(
        output
            .samples
            .iter()
            .zip(&expected)
            .map(|(ours, theirs)| ours - theirs),
    );
    let bound = TOLERANCE * largest(expected.iter().copied());
    assert!(difference <= bound, "{difference} is more than {bound}");
}

#[test]
fn the_shipped_sprites_are_those_of_diffusers() {
    assert_parity("sprites", "assets/models/sprites", Some(7));
}

#[test]
fn an_unconditional_rgb_model_is_that_of_diffusers() {
    assert_parity("rgb", "tests/fixtures/rgb", None);
}

#[test]
fn a_grey_model_with_unusual_numbers_is_that_of_diffusers() {
    assert_parity("grey", "tests/fixtures/grey", Some(2));
}

#[test]
fn one_seed_gives_one_picture_whatever_the_batch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let request = DdpmRequest {
        class: Some(1),
        seed: 3,
        steps: 4,
        ..default()
    };
    let alone = make(folder.clone(), request.clone());
    let again = make(folder.clone(), request.clone());
    assert_eq!(alone, again);
    let batch = make(
        folder.clone(),
        DdpmRequest {
            batch: 3,
            ..request.clone()
        },
    );
    let first = &batch.samples[..alone.samples.len()];
    let difference = largest(
        alone
            .samples
            .iter()
            .zip(first)
            .map(|(alone, first)| alone - first),
    );
    assert!(difference < 1e-5, "{difference}");
    let other = make(folder, DdpmRequest { seed: 4, ..request });
    assert_ne!(alone, other);
}

#[test]
fn a_sampler_is_swapped_by_the_request() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let request = DdpmRequest {
        class: Some(1),
        seed: 3,
        steps: 4,
        ..default()
    };
    let ddim = make(folder.clone(), request.clone());
    let ddpm = make(
        folder,
        DdpmRequest {
            sampler: Some(Sampler::Ddpm),
            ..request
        },
    );
    assert_ne!(ddim, ddpm);
}

#[test]
fn another_number_format_gives_nearly_the_same_picture() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let request = DdpmRequest {
        class: Some(1),
        seed: 3,
        steps: 4,
        ..default()
    };
    let single = make(folder.clone(), request.clone());
    for (dtype, tolerance) in [(DType::F64, 1e-5), (DType::F16, 0.05)] {
        let other = make(
            ModelSource::from(folder.clone()).dtype(dtype),
            request.clone(),
        );
        let difference = largest(
            single
                .samples
                .iter()
                .zip(&*other.samples)
                .map(|(a, b)| a - b),
        );
        assert!(
            difference < tolerance && difference > 0.0,
            "{dtype:?}: {difference}"
        );
    }
}

#[test]
fn a_variant_is_read_where_it_exists() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let copy = tempfile::tempdir().expect("a temporary folder");
    let weights = "unet/diffusion_pytorch_model";
    let read = |name: &str| std::fs::read(fixture.join(name)).expect("the fixture");
    let write = |name: &str, from: &str| {
        let path = copy.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, read(from)).expect("a copy");
    };
    for name in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ] {
        write(name, name);
    }
    // Only the variant's file is there.
    write(
        &format!("{weights}.fp16.safetensors"),
        &format!("{weights}.safetensors"),
    );
    let request = DdpmRequest {
        class: Some(1),
        steps: 2,
        ..default()
    };
    let expected = make(fixture.clone(), request.clone());
    let source = ModelSource::from(copy.path().to_owned()).variant("fp16");
    assert_eq!(make(source, request), expected);
}
