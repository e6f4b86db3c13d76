//! [`Steps`]: what a pipeline awaits while it works.

use std::{cell::Cell, num::NonZeroU32};

use async_channel::{Receiver, Sender};
use futures_lite::future::yield_now;

use crate::{
    Pipeline,
    frame_guard::{Running, StepGate},
    signal::Signal,
};

/// A finished step, on its way to the game.
pub(crate) struct Step<T> {
    pub(super) step: u32,
    pub(super) steps: u32,
    pub(super) partial: Option<T>,
}

/// The latest step that the game has not seen yet. Clones are the same slot.
#[derive(Clone)]
pub(crate) struct Latest<T> {
    slot: Sender<Step<T>>,
    unseen: Receiver<Step<T>>,
}

impl<T> Latest<T> {
    pub(super) fn new() -> Self {
        let (slot, unseen) = async_channel::bounded(1);
        Self { slot, unseen }
    }

    /// Takes the place of the step before, whose preview goes along where this one has none.
    fn put(&self, mut step: Step<T>) {
        if step.partial.is_none() {
            step.partial = self.take().and_then(|unseen| unseen.partial);
        }
        let _ = self.slot.force_send(step);
    }

    pub(super) fn take(&self) -> Option<Step<T>> {
        self.unseen.try_recv().ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unseen.is_empty()
    }
}

/// Handed to [`Pipeline::infer`]: the settings, and the one await of each step.
///
/// A pipeline that does not await [`next`](Self::next) runs to its end: it is not cancelled, and no other model has a
/// turn meanwhile. A unit test that calls `infer` makes the steps with `test_kit::steps`.
///
/// ```
/// use bevy_candle::{
///     candle::{Module, Tensor},
///     candle_nn::{Linear, VarBuilder, linear},
///     prelude::*,
/// };
///
/// /// Applies a layer again and again.
/// struct Settle(Linear);
///
/// impl Pipeline for Settle {
///     type Config = ();
///     type Settings = ();
///     type Request = (Vec<f32>, u32); // where it begins, and how often
///     type Partial = Vec<f32>;
///     type Output = Vec<f32>;
///     # fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
///     #     Plan::new(()).weights(files, "model.safetensors")
///     # }
///     # async fn build(_: (), vb: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
///     #     Ok(Self(linear(64, 64, vb)?))
///     # }
///
///     async fn infer(&self, (start, count): Self::Request, steps: Steps<Self>) -> Result<Vec<f32>, InferError> {
///         if start.len() != 64 {
///             return Err(InferError::invalid_request("start", start.len(), "64 numbers"));
///         }
///         let mut state = Tensor::from_vec(start, (1, 64), self.0.weight().device())?;
///         for step in 1..=count {
///             state = self.0.forward(&state)?.tanh()?;
///             // The preview is made only where somebody asked for one.
///             let preview = || state.flatten_all().and_then(|all| all.to_vec1()).unwrap_or_default();
///             steps.next(step, count, preview).await;
///         }
///         Ok(state.flatten_all()?.to_vec1()?)
///     }
///
///     // The state, and what a layer makes of it.
///     fn working_memory(&self, _: &Self::Request) -> u64 {
///         3 * 64 * size_of::<f32>() as u64
///     }
/// }
/// ```
pub struct Steps<P: Pipeline> {
    settings: P::Settings,
    reporter: Reporter<P::Partial>,
    running: Cell<Option<Running>>,
}

/// Where steps go.
pub(crate) struct Reporter<T> {
    pub(super) latest: Latest<T>,
    pub(super) previews: Option<NonZeroU32>,
    pub(super) signal: Signal,
    pub(super) gate: StepGate,
}

impl<P: Pipeline> Steps<P> {
    pub(super) fn new(settings: P::Settings, reporter: Reporter<P::Partial>) -> Self {
        let running = Cell::new(Some(reporter.gate.begin()));
        Self {
            settings,
            reporter,
            running,
        }
    }

    /// The steps of a job that nobody looks at, each with a preview.
    #[cfg(feature = "test_kit")]
    pub(crate) fn unseen(settings: P::Settings) -> Self {
        let reporter = Reporter {
            latest: Latest::new(),
            previews: Some(NonZeroU32::MIN),
            signal: Signal::default(),
            gate: StepGate::default(),
        };
        Self::new(settings, reporter)
    }

    /// Passes the steps on to a pipeline inside this one, which has the same settings and previews.
    pub(crate) fn pass_on<Q>(self) -> Steps<Q>
    where
        Q: Pipeline<Settings = P::Settings, Partial = P::Partial>,
    {
        Steps::new(self.settings, self.reporter)
    }

    /// Returns the settings as they were when the job was inserted.
    pub fn settings(&self) -> &P::Settings {
        &self.settings
    }

    /// Ends a step, `step` counting from 1 to `of`.
    ///
    /// Reports it, with a preview where the game asked for one and only then; lets the device's other
    /// models have their turn; waits while steps cost frames, unless this was the last one, see
    /// [`CandlePlugin::frame_target`](crate::CandlePlugin::frame_target); and if nobody wants the job any more, this is
    /// where it ends: the future is dropped here.
    pub async fn next(&self, step: u32, of: u32, partial: impl FnOnce() -> P::Partial) {
        let Reporter {
            latest,
            previews,
            signal,
            gate,
        } = &self.reporter;
        let partial = previews
            .filter(|every| step.is_multiple_of(every.get()))
            .map(|_| partial());
        latest.put(Step {
            step,
            steps: of,
            partial,
        });
        signal.raise();
        let last = self.running.take().map(|step| step.since());
        yield_now().await;
        // The next job waits before its first one.
        if let Some(last) = last.filter(|_| step < of) {
            gate.pass(last).await;
        }
        self.running.set(Some(gate.begin()));
    }
}

#[cfg(all(test, feature = "test_kit"))]
mod tests {
    use futures_lite::future::poll_once;

    use crate::{device::block_on, test_kit::Fake};

    #[test]
    fn nothing_waits_at_a_closed_gate_when_the_last_step_is_done() {
        let steps = crate::test_kit::steps::<Fake>(Default::default());
        steps.reporter.gate.close();
        for (step, goes_on) in [(1, false), (2, true)] {
            let mut next = std::pin::pin!(steps.next(step, 2, || 0));
            assert!(block_on(poll_once(next.as_mut())).is_none(), "others' turn");
            assert_eq!(block_on(poll_once(next)).is_some(), goes_on);
        }
    }
}
