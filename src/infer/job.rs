//! A job on its way to the model and back.

#[cfg(feature = "test_kit")]
use std::num::NonZeroU32;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bevy::{platform::time::Instant, prelude::*};
use futures_lite::{FutureExt, future};

use super::{
    Host, JobId,
    steps::{Reporter, Steps},
};
use crate::{
    InferError, Pipeline,
    frame_guard::StepGate,
    lifeline::Watch,
    mailbox::{Event, Mailbox},
    memory::{Grant, InHand},
    panics::{drop_guarded, panic_message},
};

/// What the model gets: host data only.
pub(crate) struct Job<P: Pipeline> {
    request: P::Request,
    settings: P::Settings,
    reporter: Reporter<P::Partial>,
    watch: Watch,
    end: EndGuard<P>,
    arrived: JobId,
    /// After the end: a model that has no jobs has been heard of all of them, so its time-out counts from
    /// the last.
    in_hand: Option<InHand>,
}

/// How a job ended.
pub(crate) struct End<P: Pipeline> {
    pub(super) entity: Entity,
    pub(super) id: JobId,
    pub(super) result: Result<P::Output, InferError>,
    /// From its start on the device thread to its end; [`None`] where it did not get that far.
    pub(super) ran: Option<Duration>,
}

/// Sends the one end of a job, wherever the job is dropped.
pub(super) struct EndGuard<P: Pipeline> {
    entity: Entity,
    id: JobId,
    mailbox: Mailbox<P>,
    /// The model that was to run it.
    host: Option<Host>,
    ran: Option<Duration>,
    sent: bool,
}

impl<P: Pipeline> End<P> {
    #[cfg(feature = "test_kit")]
    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    pub(super) fn guard(entity: Entity, id: JobId, mailbox: Mailbox<P>) -> EndGuard<P> {
        EndGuard {
            entity,
            id,
            mailbox,
            host: None,
            ran: None,
            sent: false,
        }
    }

    pub(crate) fn ran(&self) -> Option<Duration> {
        self.ran
    }
}

impl<P: Pipeline> EndGuard<P> {
    fn send(&mut self, result: Result<P::Output, InferError>) {
        if !std::mem::replace(&mut self.sent, true) {
            self.mailbox.send(Event::End(End {
                entity: self.entity,
                id: self.id,
                result,
                ran: self.ran,
            }));
        }
    }
}

impl<P: Pipeline> Drop for EndGuard<P> {
    fn drop(&mut self) {
        let loss = self.host.as_ref().and_then(Host::loss);
        self.send(Err(loss.map_or(InferError::Unloaded, InferError::failed)));
    }
}

impl<P: Pipeline> Job<P> {
    pub(super) fn new(
        end: EndGuard<P>,
        request: P::Request,
        settings: P::Settings,
        reporter: Reporter<P::Partial>,
        watch: Watch,
    ) -> Self {
        Self {
            request,
            settings,
            reporter,
            watch,
            end,
            arrived: JobId::next(),
            in_hand: None,
        }
    }

    /// What the model is asked for.
    #[cfg(feature = "test_kit")]
    pub(crate) fn request(&self) -> &P::Request {
        &self.request
    }

    /// The settings when it was inserted.
    #[cfg(feature = "test_kit")]
    pub(crate) fn settings(&self) -> &P::Settings {
        &self.settings
    }

    /// Every how many steps a preview is wanted.
    #[cfg(feature = "test_kit")]
    pub(crate) fn previews(&self) -> Option<NonZeroU32> {
        self.reporter.previews
    }

    #[cfg(feature = "test_kit")]
    pub(crate) fn id(&self) -> JobId {
        self.end.id
    }

    /// Jobs are served in this order: that of their insertion, whenever they were made.
    pub(crate) fn arrived(&self) -> JobId {
        self.arrived
    }

    /// Where it waits while steps cost frames.
    pub(super) fn gate(&self) -> &StepGate {
        &self.reporter.gate
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Marks the job as handed to a model, which it ends with.
    pub(crate) fn hand_over(mut self, in_hand: InHand, host: Host) -> Self {
        self.in_hand = Some(in_hand);
        self.watch = self.watch.and(host.session());
        self.end.host = Some(host);
        self
    }

    /// Gives the job back to its manager: it waits for the model to come back.
    pub(crate) fn give_back(mut self) {
        let _in_hand = self.in_hand.take();
        self.end.host = None;
        self.watch = self.watch.alone();
        let mailbox = self.end.mailbox.clone();
        mailbox.send(Event::Returned(self));
    }

    /// Ends the job without running it.
    pub(crate) fn refuse(mut self, error: InferError) {
        self.end.send(Err(error));
    }

    /// Whether somebody still waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.watch.is_cut()
    }

    /// Asks the model how many bytes the job needs.
    pub(crate) fn working_memory(&self, pipeline: &P) -> Result<u64, InferError> {
        let asked = AssertUnwindSafe(|| pipeline.working_memory(&self.request));
        catch_unwind(asked).map_err(|panic| InferError::Panicked(panic_message(panic)))
    }

    /// Runs on the device thread until the job is done or nobody wants it.
    pub(crate) async fn run(
        self,
        pipeline: &P,
        grant: Grant,
        explain: impl FnOnce(InferError, u64) -> InferError,
    ) {
        let Self {
            request,
            settings,
            reporter,
            watch,
            in_hand: _in_hand,
            mut end,
            arrived: _,
        } = self;
        let (steps, began) = (Steps::new(settings, reporter), Instant::now());
        let mut run = Box::pin(
            AssertUnwindSafe(async { pipeline.infer(request, steps).await }).catch_unwind(),
        );
        let done = async { Some(run.as_mut().await) };
        let unwanted = async {
            watch.cut().await;
            None
        };
        let ended = future::or(unwanted, done).await;
        // The job's memory goes before its end is told, and its drop cannot take the model with it.
        drop_guarded("a job's drop", run);
        let needed = grant.bytes();
        drop(grant);
        end.ran = ended.is_some().then(|| began.elapsed());
        let Some(ended) = ended else { return };
        let result = ended.unwrap_or_else(|panic| Err(InferError::Panicked(panic_message(panic))));
        end.send(result.map_err(|error| explain(error, needed)));
    }
}
