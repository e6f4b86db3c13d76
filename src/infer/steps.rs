//! [`Steps`]: what a pipeline awaits while it works.

use std::{cell::Cell, num::NonZeroU32};

use async_channel::Sender;
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

/// Handed to [`Pipeline::infer`]: the settings, and the one await of each step.
///
/// A unit test that calls it makes them with `test_kit::steps`.
pub struct Steps<P: Pipeline> {
    settings: P::Settings,
    reporter: Reporter<P::Partial>,
    running: Cell<Option<Running>>,
}

/// Where steps go: a slot that holds the latest.
pub(crate) struct Reporter<T> {
    pub(super) slot: Sender<Step<T>>,
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
            slot: async_channel::bounded(1).0,
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
    /// models have their turn; waits while steps cost frames, see
    /// [`CandlePlugin::frame_target`](crate::CandlePlugin::frame_target); and if nobody wants the job any more, this is
    /// where it ends: the future is dropped here.
    pub async fn next(&self, step: u32, of: u32, partial: impl FnOnce() -> P::Partial) {
        let Reporter {
            slot,
            previews,
            signal,
            gate,
        } = &self.reporter;
        let partial = previews
            .filter(|every| step.is_multiple_of(every.get()))
            .map(|_| partial());
        let _ = slot.force_send(Step {
            step,
            steps: of,
            partial,
        });
        signal.raise();
        let last = self.running.take().map(|step| step.since());
        yield_now().await;
        if let Some(last) = last {
            gate.pass(last).await;
        }
        self.running.set(Some(gate.begin()));
    }
}
