//! What makes the same picture and what another one, and what makes none.

use std::collections::HashMap;

use bevy_candle::candle::{DType, Device, safetensors};

use super::*;

fn make(source: impl Into<ModelSource>, request: DdpmRequest) -> DdpmOutput {
    ask(source, request).expect("pictures")
}

fn ask(source: impl Into<ModelSource>, request: DdpmRequest) -> Result<DdpmOutput, InferError> {
    ask_with(source, request, |_| {})
}

fn ask_with(
    source: impl Into<ModelSource>,
    request: DdpmRequest,
    change: impl FnOnce(&mut DdpmSettings),
) -> Result<DdpmOutput, InferError> {
    run(source, request, change).result.expect("it has ended")
}

#[test]
fn a_picture_that_the_model_cannot_start_from_is_refused() {
    let start = StartImage::new(&picture("start"), 0.6).expect("a picture");
    let request = DdpmRequest {
        image: Some(start),
        class: Some(0),
        ..default()
    };
    let error = ask(fixtures().join("grey"), request).expect_err("it has another size");
    assert!(error.to_string().contains("[12, 8] pixels"), "{error}");
}

#[test]
fn previews_come_every_few_steps_and_look_like_what_is_made() {
    for sampler in [Sampler::default(), Sampler::Euler] {
        let request = DdpmRequest {
            class: Some(1),
            steps: 5,
            sampler: Some(sampler),
            ..default()
        };
        let made = run(fixtures().join("grey"), request, |_| {});
        let output = made.result.expect("it has ended").expect("a picture");
        let largest = output.samples.iter().fold(0_f32, |a, b| a.max(b.abs()));
        assert!(largest <= 1.0, "a picture is cut off: {largest}");
        assert!(!made.previews.is_empty());
        for (step, preview) in made.previews {
            assert!(step.is_multiple_of(2), "{step}");
            assert_eq!(preview.shape, output.shape);
            let spread = preview
                .samples
                .iter()
                .map(|sample| sample * sample)
                .sum::<f32>();
            let spread = (spread / preview.samples.len() as f32).sqrt();
            assert!(
                spread < 2.0,
                "{sampler:?} shows noise of {spread} at {step}"
            );
        }
    }
}

#[test]
fn a_flat_folder_may_lack_its_index() {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in [
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.safetensors",
    ] {
        let from = fixtures().join("celebahq").join(name);
        std::fs::copy(from, copy.path().join(name)).expect("a copy");
    }
    let request = DdpmRequest {
        steps: 2,
        ..default()
    };
    let expected = make(fixtures().join("celebahq"), request.clone());
    assert_eq!(make(copy.path().to_owned(), request), expected);
}

#[test]
fn a_time_step_that_has_no_logarithm_is_refused() {
    let request = DdpmRequest {
        sampler: Some(Sampler::DpmSolverPlusPlus),
        ..default()
    };
    assert!(ask(fixtures().join("ncsnpp"), request.clone()).is_ok());
    let settings = |settings: &mut DdpmSettings| {
        settings.timestep_spacing = Some(TimestepSpacing::Leading);
    };
    let refused = ask_with(fixtures().join("ncsnpp"), DdpmRequest::default(), settings);
    let error = refused.expect_err("its last step is at 0");
    assert!(error.to_string().contains("`Trailing`"), "{error}");
}

#[test]
fn every_sampler_makes_its_own_picture_without_a_reload() {
    let samplers = [
        Sampler::Ddpm,
        Sampler::default(),
        Sampler::Euler,
        Sampler::DpmSolverPlusPlus,
    ];
    let request = |sampler| DdpmRequest {
        class: Some(1),
        steps: 4,
        sampler: Some(sampler),
        ..default()
    };
    let made = samplers.map(|sampler| make(fixtures().join("grey"), request(sampler)));
    for (i, output) in made.iter().enumerate() {
        assert!(output.samples.iter().all(|sample| sample.is_finite()));
        assert!(made[..i].iter().all(|other| other != output));
    }
}

fn short_request() -> DdpmRequest {
    DdpmRequest {
        class: Some(1),
        seed: 3,
        steps: 4,
        ..default()
    }
}

#[test]
fn one_seed_gives_one_picture_whatever_the_batch() {
    let (folder, request) = (fixtures().join("grey"), short_request());
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
fn another_number_format_gives_nearly_the_same_picture() {
    let (folder, request) = (fixtures().join("grey"), short_request());
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

const WEIGHTS: &str = "unet/diffusion_pytorch_model";

/// The model in grey, without its weights.
fn copy_without_weights() -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ] {
        let path = copy.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::copy(fixtures().join("grey").join(name), path).expect("a copy");
    }
    copy
}

fn two_steps() -> DdpmRequest {
    DdpmRequest {
        class: Some(1),
        steps: 2,
        ..default()
    }
}

#[test]
fn a_variant_is_read_where_it_exists() {
    let fixture = fixtures().join("grey");
    let copy = copy_without_weights();
    let weights = fixture.join(format!("{WEIGHTS}.safetensors"));
    // Only the variant's file is there.
    let variant = copy.path().join(format!("{WEIGHTS}.fp16.safetensors"));
    std::fs::copy(weights, variant).expect("a copy");
    let source = ModelSource::from(copy.path().to_owned()).variant("fp16");
    assert_eq!(make(source, two_steps()), make(fixture, two_steps()));
}

#[test]
fn weights_in_two_files_make_the_same_picture() {
    let fixture = fixtures().join("grey");
    let copy = copy_without_weights();
    let weights = fixture.join(format!("{WEIGHTS}.safetensors"));
    let weights = safetensors::load(weights, &Device::Cpu).expect("the fixture");
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut places = Vec::new();
    for (index, (name, tensor)) in weights.into_iter().enumerate() {
        places.push(format!(r#""{name}": "{}.safetensors""#, index % 2));
        shards[index % 2].insert(name, tensor);
    }
    for (index, shard) in shards.iter().enumerate() {
        let file = copy.path().join(format!("unet/{index}.safetensors"));
        safetensors::save(shard, file).expect("a shard");
    }
    let index = format!(r#"{{"weight_map": {{{}}}}}"#, places.join(", "));
    let file = format!("{WEIGHTS}.safetensors.index.json");
    std::fs::write(copy.path().join(file), index).expect("an index");
    let made = make(copy.path().to_owned(), two_steps());
    assert_eq!(made, make(fixture, two_steps()));
}
