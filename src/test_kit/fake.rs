//! [`Fake`]: the pipeline that does what its script says.

use std::{rc::Rc, sync::Arc, time::Duration};

use bevy::math::UVec2;
use candle_core::Tensor;
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::script::{CONFIG, Place, Script, WEIGHTS};
use crate::{InferError, LoadError, LoadSteps, ModelFiles, Pipeline, Plan, Steps, read_json};

/// A pipeline without a network. `Fake<1>`, `Fake<2>` and so on are other kinds of models.
///
/// The preview of a step is ten times its number; the sample size is 8 × 4 pixels.
pub struct Fake<const KIND: usize = 0> {
    script: Arc<Script>,
    weights: Vec<Tensor>,
    /// A pipeline never leaves its thread, so it may hold what cannot.
    _not_send: Rc<()>,
}

/// What a fake model is asked for: a number of steps. Fails or panics where the model's script says so, or
/// these fields. More fields will come: end with `..default()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FakeRequest {
    /// How many steps the job has (default 3).
    pub steps: u32,
    /// How long each step keeps the device thread busy (default zero).
    pub work: Duration,
    /// Bytes that the job claims before it starts, and allocates (default 1 MiB).
    pub memory: u64,
    /// Makes this one job panic, in its first step (default `false`).
    pub panic: bool,
    /// Makes this one job fail, in its first step (default `false`).
    pub fail: bool,
}

impl Default for FakeRequest {
    fn default() -> Self {
        Self {
            steps: 3,
            work: Duration::ZERO,
            memory: 1 << 20,
            panic: false,
            fail: false,
        }
    }
}

/// Settings that show in the output. More fields will come: end with `..default()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FakeSettings {
    /// Any number.
    pub value: u32,
}

/// What a fake model gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FakeOutput {
    /// Steps done.
    pub steps: u32,
    /// The settings of the job.
    pub settings: FakeSettings,
    /// Tensors that the pipeline holds.
    pub tensors: usize,
}

/// The fake configuration file.
#[derive(Deserialize)]
struct Config {
    script: u64,
}

impl<const KIND: usize> Pipeline for Fake<KIND> {
    type Config = FakeConfig;
    type Settings = FakeSettings;
    type Request = FakeRequest;
    type Partial = u32;
    type Output = FakeOutput;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<FakeConfig>, LoadError> {
        let config: Config = read_json(files, CONFIG)?;
        let gone = || LoadError::build("the `FakeModel` of this source was dropped");
        let script = Script::find(config.script).ok_or_else(gone)?;
        if let Some(gate) = script.gate_at(Place::Plan) {
            gate.pass_blocking();
        }
        script.act(Place::Plan)?;
        Plan::new(FakeConfig(script))
            .weights(files, WEIGHTS)?
            .check(|config, vb| config.tensors(&vb))
    }

    async fn build(
        FakeConfig(script): FakeConfig,
        weights: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let built = Self {
            weights: FakeConfig(script.clone()).tensors(&weights)?,
            script,
            _not_send: Rc::new(()),
        };
        built.script.note(Place::Build);
        load.next().await;
        built.at(Place::Build).await?;
        Ok(built)
    }

    async fn warm_up(&self, load: &LoadSteps) -> Result<(), LoadError> {
        self.script.note(Place::WarmUp);
        load.next().await;
        self.at(Place::WarmUp).await
    }

    async fn infer(
        &self,
        request: FakeRequest,
        steps: Steps<Self>,
    ) -> Result<FakeOutput, InferError> {
        // A job's own memory, to be freed with it.
        let _activations = vec![1_u8; request.memory as usize];
        for step in 1..=request.steps {
            self.script.note(Place::Infer);
            assert!(!request.panic, "asked to panic");
            if request.fail {
                return Err(InferError::failed("asked to fail"));
            }
            self.at(Place::Infer).await.map_err(InferError::failed)?;
            std::thread::sleep(request.work);
            steps.next(step, request.steps, || step * 10).await;
        }
        let (settings, tensors) = (*steps.settings(), self.weights.len());
        Ok(FakeOutput {
            steps: request.steps,
            settings,
            tensors,
        })
    }

    fn working_memory(&self, request: &FakeRequest) -> u64 {
        request.memory
    }

    fn sample_size(&self) -> Option<UVec2> {
        Some(UVec2::new(8, 4))
    }
}

/// The configuration of a [`Fake`].
pub struct FakeConfig(Arc<Script>);

impl FakeConfig {
    fn tensors(&self, vb: &VarBuilder<'static>) -> candle_core::Result<Vec<Tensor>> {
        (0..self.0.tensors)
            .map(|i| vb.get(self.0.elements, &format!("tensor.{i}")))
            .collect()
    }
}

impl<const KIND: usize> Fake<KIND> {
    /// Waits at the gate of a place, then does what the script says there.
    async fn at(&self, place: Place) -> Result<(), LoadError> {
        if let Some(gate) = self.script.gate_at(place) {
            gate.pass().await;
        }
        self.script.block(place);
        self.script.act(place)
    }
}

impl<const KIND: usize> Drop for Fake<KIND> {
    fn drop(&mut self) {
        self.script.note(Place::Drop);
        if let Some(gate) = self.script.gate_at(Place::Drop) {
            gate.pass_blocking();
        }
        assert!(
            self.script.panic != Some(Place::Drop),
            "scripted panic in Drop"
        );
    }
}
