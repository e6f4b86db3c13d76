//! Ten steps of DDIM from recorded noise, against Python's diffusers.

use std::collections::HashMap;

use bevy_candle::candle::{Device, Tensor, safetensors};

use super::*;

/// The result differs from diffusers' by at most this part of its largest value.
const TOLERANCE: f32 = 1e-3;

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

/// Makes pictures, and returns what the last step showed.
fn show(source: impl Into<ModelSource>, request: DdpmRequest) -> DdpmOutput {
    let made = run(source, request, |_| {});
    made.result.expect("it has ended").expect("pictures");
    made.previews.into_iter().next_back().expect("previews").1
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
