//! [`Slot`]: a second manager of the same kind.

use std::marker::PhantomData;

use bevy::math::UVec2;
use candle_nn::VarBuilder;

use super::Pipeline;
use crate::{InferError, LoadError, LoadSteps, ModelFiles, Plan, Steps};

/// Any pipeline under another name: `Slot<P, Tag>` has a manager, a state and jobs of its own.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::{Slot, prelude::*};
///
/// struct Enemies;
/// type EnemySprites = Slot<DdpmPipeline, Enemies>;
///
/// # let mut app = App::new();
/// app.add_plugins(MinimalPlugins)
///     .add_plugins((ModelPlugin::<DdpmPipeline>::default(), ModelPlugin::<EnemySprites>::default()))
///     .add_systems(Startup, |mut enemies: ResMut<ModelManager<EnemySprites>>| {
///         enemies.load("models/enemies");
///     });
/// ```
pub struct Slot<P, Tag> {
    pipeline: P,
    tag: PhantomData<fn() -> Tag>,
}

impl<P: Pipeline, Tag: 'static> Pipeline for Slot<P, Tag> {
    type Config = P::Config;
    type Settings = P::Settings;
    type Request = P::Request;
    type Partial = P::Partial;
    type Output = P::Output;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<P::Config>, LoadError> {
        P::plan(files)
    }

    async fn build(
        config: P::Config,
        weights: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let pipeline = P::build(config, weights, load).await?;
        Ok(Self {
            pipeline,
            tag: PhantomData,
        })
    }

    async fn infer(
        &self,
        request: P::Request,
        steps: Steps<Self>,
    ) -> Result<P::Output, InferError> {
        self.pipeline.infer(request, steps.pass_on()).await
    }

    async fn warm_up(&self, load: &LoadSteps) -> Result<(), LoadError> {
        self.pipeline.warm_up(load).await
    }

    fn working_memory(&self, request: &P::Request) -> u64 {
        self.pipeline.working_memory(request)
    }

    fn sample_size(&self) -> Option<UVec2> {
        self.pipeline.sample_size()
    }
}
