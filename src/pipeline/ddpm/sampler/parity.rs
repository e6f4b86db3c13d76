//! Every step of many configurations, as diffusers computed them from the same outputs and noise.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::{Denoiser, Prediction, Sampler, SchedulerConfig, SigmaSpacing};
use crate::MemoryFiles;

/// A step differs by at most this part of its largest value.
const TOLERANCE: f32 = 1e-5;

/// Configurations in the fixture.
const COUNT: usize = 1098;

fn sampler(case: &Value) -> Sampler {
    match case["_class_name"].as_str() {
        Some("DDPMScheduler") => Sampler::Ddpm,
        Some("DDIMScheduler") => Sampler::Ddim {
            eta: case["_eta"].as_f64().expect("a number"),
        },
        Some("EulerDiscreteScheduler") => Sampler::Euler,
        _ => Sampler::DpmSolverPlusPlus,
    }
}

struct Recorded {
    start: Vec<f32>,
    outputs: Vec<Vec<f32>>,
    noises: Vec<Vec<f32>>,
    variances: Vec<Vec<f32>>,
}

impl Recorded {
    fn new(tensors: &HashMap<String, Tensor>) -> Self {
        let rows = |name: &str| tensors[name].to_vec2::<f32>().expect("rows");
        Self {
            start: tensors["start"].to_vec1().expect("a row"),
            outputs: rows("outputs"),
            noises: rows("noises"),
            variances: rows("variances"),
        }
    }

    fn prediction(&self, config: &SchedulerConfig, step: usize) -> Prediction {
        let learned = config.variance_type.is_learned();
        Prediction {
            output: self.outputs[step].clone(),
            variance: learned.then(|| self.variances[step].clone()),
        }
    }

    fn assert_parity(&self, case: &Value, expected: &[Vec<f32>]) {
        let text = case.to_string().into_bytes();
        let files = MemoryFiles::new([("s.json", text)]);
        let config = SchedulerConfig::read(&files, "s.json").expect("a configuration");
        let (steps, row) = (expected.len() as u32, self.start.len());
        let denoiser = Denoiser::new(&config, sampler(case), steps, row, None);
        let mut denoiser = denoiser.unwrap_or_else(|error| panic!("{error}: {case}"));
        let timesteps: Vec<f64> =
            serde_json::from_value(case["_timesteps"].clone()).expect("numbers");
        // Where noise levels have a spacing of their own, diffusers cuts what a logarithm says off to a whole time step,
        // and its last unit may decide. The noise levels themselves are compared below, with the samples.
        let is_cut = sampler(case) == Sampler::DpmSolverPlusPlus
            && config.sigma_spacing != SigmaSpacing::Timesteps;
        let unit = if is_cut { 1.0 } else { 1e-3 };
        for (ours, theirs) in denoiser.timesteps().iter().zip(&timesteps) {
            let difference = (ours - theirs).abs();
            assert!(difference <= unit, "{ours} and {theirs} in {case}");
        }
        assert_eq!(denoiser.timesteps().len(), timesteps.len(), "{case}");
        let mut samples = denoiser.start(self.start.clone(), None);
        for (step, expected) in expected.iter().enumerate() {
            let prediction = self.prediction(&config, step);
            denoiser.step(step, &mut samples, &prediction, || {
                self.noises[step].clone()
            });
            let largest = expected
                .iter()
                .fold(0_f32, |most, value| most.max(value.abs()));
            for (ours, theirs) in samples.iter().zip(expected) {
                assert!(
                    (ours - theirs).abs() <= TOLERANCE * largest,
                    "step {step} of {case}: {ours} and {theirs}"
                );
            }
        }
    }
}

#[test]
fn every_step_is_that_of_diffusers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases = std::fs::read(fixtures.join("schedulers.json")).expect("the fixture");
    let cases: Vec<Value> = serde_json::from_slice(&cases).expect("a list");
    let tensors = fixtures.join("schedulers.safetensors");
    let tensors = candle_core::safetensors::load(tensors, &Device::Cpu).expect("the fixture");
    let expected = tensors["expected"].to_vec2::<f32>().expect("rows");
    assert_eq!(cases.len(), COUNT);
    let recorded = Recorded::new(&tensors);
    let mut rows = &*expected;
    for case in &cases {
        let steps = case["_timesteps"].as_array().expect("a list").len();
        let (expected, rest) = rows.split_at(steps);
        recorded.assert_parity(case, expected);
        rows = rest;
    }
    assert!(rows.is_empty(), "a row for each step");
}
