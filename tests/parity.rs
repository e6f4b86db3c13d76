//! Ten steps of DDIM from recorded noise, through the manager, against Python's diffusers.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use bevy::prelude::*;
use bevy_candle::{
    candle::{DType, Device, Tensor, safetensors},
    prelude::*,
    test_kit::run_until,
};

/// The result differs from diffusers' by at most this part of its largest value.
const TOLERANCE: f32 = 1e-3;

/// What a job has made, and its previews.
#[derive(Resource, Default)]
struct Made {
    result: Option<Result<DdpmOutput, InferError>>,
    previews: Vec<(u32, DdpmOutput)>,
}

fn make(source: impl Into<ModelSource>, request: DdpmRequest) -> DdpmOutput {
    ask(source, request).expect("pictures")
}

/// Makes pictures, and returns what the last step showed.
fn show(source: impl Into<ModelSource>, request: DdpmRequest) -> DdpmOutput {
    let made = run(source, request, |_| {});
    made.result.expect("it has ended").expect("pictures");
    made.previews.into_iter().next_back().expect("previews").1
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

fn run(
    source: impl Into<ModelSource>,
    request: DdpmRequest,
    change: impl FnOnce(&mut DdpmSettings),
) -> Made {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()))
        .init_resource::<Made>();
    let mut manager = app.world_mut().resource_mut::<ModelManager<DdpmPipeline>>();
    change(manager.settings_mut());
    manager.load(source);
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request).previews_every(2))
        .observe(
            |step: On<InferStep<DdpmPipeline>>, mut made: ResMut<Made>| {
                let preview = step.partial.clone();
                made.previews
                    .extend(preview.map(|preview| (step.step, preview)));
            },
        )
        .observe(
            |mut done: On<Inferred<DdpmPipeline>>, mut made: ResMut<Made>| {
                made.result = Some(done.take());
            },
        );
    run_until(&mut app, "the pictures", |world| {
        world.resource::<Made>().result.is_some()
    });
    app.world_mut()
        .remove_resource()
        .expect("it was just there")
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

/// What Python recorded of a model.
struct Recorded(HashMap<String, Tensor>);

impl Recorded {
    fn of(name: &str) -> Self {
        let file = fixtures().join(format!("{name}.parity.safetensors"));
        Self(safetensors::load(file, &Device::Cpu).expect("the fixture"))
    }

    fn values(&self, key: &str) -> Vec<f32> {
        let all = self.0[key].flatten_all();
        all.and_then(|all| all.to_vec1()).expect("numbers")
    }

    /// Ten steps from the recorded noise.
    fn request(&self) -> DdpmRequest {
        DdpmRequest {
            noise: Some(self.values("noise").into()),
            steps: 10,
            batch: 2,
            ..default()
        }
    }

    /// Compares what the last step showed, which is not cut off.
    #[track_caller]
    fn assert_near(&self, key: &str, output: &DdpmOutput) {
        let expected = self.values(key);
        assert_eq!(output.samples.len(), expected.len());
        let pairs = output.samples.iter().zip(&expected);
        let difference = largest(pairs.map(|(ours, theirs)| ours - theirs));
        let bound = TOLERANCE * largest(expected.iter().copied());
        assert!(
            difference <= bound,
            "{key}: {difference} is more than {bound}"
        );
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[track_caller]
fn assert_parity(name: &str, class: Option<u32>) {
    let recorded = Recorded::of(name);
    let request = DdpmRequest {
        class,
        ..recorded.request()
    };
    recorded.assert_near("steps", &show(fixtures().join(name), request));
}

#[test]
fn the_shipped_sprites_are_those_of_diffusers() {
    let recorded = Recorded::of("sprites");
    let request = DdpmRequest {
        class: Some(7),
        ..recorded.request()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/sprites");
    recorded.assert_near("steps", &show(folder, request));
}

#[test]
fn an_unconditional_rgb_model_is_that_of_diffusers() {
    assert_parity("rgb", None);
}

#[test]
fn a_grey_model_with_unusual_numbers_is_that_of_diffusers() {
    assert_parity("grey", Some(2));
}

#[test]
fn a_model_as_the_first_ones_published_is_that_of_diffusers() {
    assert_parity("cifar", None);
}

#[test]
fn a_flat_folder_with_old_names_is_that_of_diffusers() {
    assert_parity("celebahq", None);
}

#[test]
fn residual_blocks_that_halve_and_double_are_those_of_diffusers() {
    assert_parity("resnet", None);
}

#[test]
fn blocks_with_a_skip_and_fourier_times_are_those_of_diffusers() {
    assert_parity("ncsnpp", None);
}

#[test]
fn a_variant_in_shards_is_that_of_diffusers() {
    let recorded = Recorded::of("rgba");
    let source = ModelSource::from(fixtures().join("rgba")).variant("fp16");
    recorded.assert_near("steps", &show(source, recorded.request()));
}

#[test]
fn classes_that_are_numbers_are_those_of_diffusers() {
    assert_parity("timestep", Some(5));
}

#[test]
fn classes_that_are_vectors_are_those_of_diffusers() {
    let recorded = Recorded::of("identity");
    let request = DdpmRequest {
        class_embedding: Some(recorded.values("class_embedding").into()),
        ..recorded.request()
    };
    recorded.assert_near("steps", &show(fixtures().join("identity"), request));
}

#[test]
fn a_model_that_predicts_variances_is_that_of_diffusers() {
    let recorded = Recorded::of("learned");
    let request = DdpmRequest {
        sampler: Some(Sampler::DpmSolverPlusPlus),
        ..recorded.request()
    };
    recorded.assert_near("steps", &show(fixtures().join("learned"), request));
}

#[test]
fn guidance_by_classes_is_that_of_diffusers() {
    let recorded = Recorded::of("grey");
    let request = DdpmRequest {
        class: Some(0),
        guidance: Some(Guidance::new(4.0, 2)),
        ..recorded.request()
    };
    recorded.assert_near("guided", &show(fixtures().join("grey"), request));
}

#[test]
fn a_varied_picture_is_that_of_diffusers() {
    let recorded = Recorded::of("rgb");
    let start = StartImage::new(&picture("start"), 0.6).expect("a picture");
    for (sampler, key) in [
        (Sampler::default(), "varied_ddim"),
        (Sampler::Euler, "varied_euler"),
        (Sampler::DpmSolverPlusPlus, "varied_dpm"),
    ] {
        let request = DdpmRequest {
            image: Some(start.clone()),
            sampler: Some(sampler),
            ..recorded.request()
        };
        recorded.assert_near(key, &show(fixtures().join("rgb"), request));
    }
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

/// A picture as Bevy loads it.
fn picture(name: &str) -> Image {
    let bytes = std::fs::read(fixtures().join(format!("{name}.png"))).expect("the fixture");
    let image = image::load_from_memory(&bytes).expect("a picture");
    Image::from_dynamic(image, true, default())
}

#[test]
fn images_have_the_bytes_that_python_saves() {
    for name in ["rgb", "grey", "rgba"] {
        let recorded = Recorded::of(name);
        let output = DdpmOutput {
            shape: recorded.0["steps"].dims4().expect("four").into(),
            samples: recorded.values("steps").into(),
        };
        let ours = &output.images()[0];
        let bytes = std::fs::read(fixtures().join(format!("{name}.png"))).expect("the fixture");
        let theirs = image::load_from_memory(&bytes)
            .expect("a picture")
            .to_rgba8();
        assert!(ours.texture_descriptor.format.is_srgb());
        assert_eq!(
            ours.data.as_deref(),
            Some(theirs.as_raw().as_slice()),
            "{name}"
        );
    }
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
