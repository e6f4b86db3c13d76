//! [`steps`]: to run a pipeline without an app.

use crate::{Pipeline, Steps};

/// Makes the [`Steps`] of a job that nobody looks at, for unit tests that call [`Pipeline::infer`] themselves. Each
/// step makes a preview, so that this code is run, too.
///
/// ```
/// use bevy::tasks::block_on;
/// use bevy_candle::{
///     candle::{DType, Device, Module, Tensor},
///     candle_nn::{Linear, VarBuilder, linear},
///     prelude::*,
///     test_kit::steps,
/// };
///
/// struct Double(Linear);
///
/// impl Pipeline for Double {
///     type Config = ();
///     type Settings = f64; // a factor
///     type Request = [f32; 2];
///     type Partial = ();
///     type Output = Vec<f32>;
///     # fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> { Ok(Plan::new(())) }
///
///     async fn build(_: (), vb: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
///         Ok(Self(linear(2, 2, vb)?))
///     }
///
///     async fn infer(&self, request: [f32; 2], steps: Steps<Self>) -> Result<Vec<f32>, InferError> {
///         let input = Tensor::new(&[request], self.0.weight().device())?;
///         let output = self.0.forward(&input)?.affine(*steps.settings(), 1.0)?;
///         steps.next(1, 1, || ()).await;
///         Ok(output.flatten_all()?.to_vec1()?)
///     }
/// }
///
/// let weights = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// let double = block_on(Double::build((), weights, &LoadSteps::default()))?;
/// let output = block_on(double.infer([3.0, 4.0], steps(2.0)))?;
/// assert_eq!(output, [1.0, 1.0], "only the bias of `affine` is left");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn steps<P: Pipeline>(settings: P::Settings) -> Steps<P> {
    Steps::unseen(settings)
}
