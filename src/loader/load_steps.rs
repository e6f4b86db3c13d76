//! [`LoadSteps`]: what a pipeline awaits while it is built.

use futures_lite::future::yield_now;

/// Handed to [`Pipeline::build`](crate::Pipeline::build) and
/// [`Pipeline::warm_up`](crate::Pipeline::warm_up).
///
/// A pipeline awaits [`next`](Self::next) between its modules. There the other models of the device get
/// their turn, and there a cancelled load ends: the future is simply not continued. A
/// unit test that calls `build` makes one with `LoadSteps::default()`.
///
/// ```
/// use bevy_candle::{
///     candle_nn::{Linear, VarBuilder, linear},
///     prelude::*,
/// };
///
/// /// As many layers as the configuration says.
/// async fn layers(count: usize, vb: VarBuilder<'static>, load: &LoadSteps) -> Result<Vec<Linear>, LoadError> {
///     let mut layers = Vec::with_capacity(count);
///     for layer in 0..count {
///         layers.push(linear(512, 512, vb.pp(layer))?);
///         load.next().await;
///     }
///     Ok(layers)
/// }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LoadSteps {}

impl LoadSteps {
    /// Lets others run, and ends the load here if nobody wants it any more.
    pub async fn next(&self) {
        yield_now().await;
    }
}
