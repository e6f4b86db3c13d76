//! [`Mailbox`]: how workers reach a manager.

use bevy::math::UVec2;
use crossbeam_channel::Sender;

use crate::{
    Pipeline,
    frame_guard::StepGate,
    infer::{End, Job},
    loader::Gone,
    signal::Signal,
};

/// What workers tell a manager. Nothing in it holds a tensor, a pipeline or a device.
pub(crate) enum Event<P: Pipeline> {
    /// The load is built and warmed up.
    Built(Built),
    /// The load or the model has ended, and its memory is back.
    Gone(Gone),
    /// A job has ended.
    End(End<P>),
    /// A job's model makes room: the job waits for it to come back.
    Returned(Job<P>),
}

/// A model that is ready.
pub(crate) struct Built {
    pub(crate) generation: u64,
    pub(crate) sample_size: Option<UVec2>,
}

/// Sends events to a manager, and makes its app look at them in the next frame.
pub(crate) struct Mailbox<P: Pipeline> {
    events: Sender<Event<P>>,
    signal: Signal,
    gate: StepGate,
}

impl<P: Pipeline> Mailbox<P> {
    pub(crate) fn new(events: Sender<Event<P>>, signal: Signal, gate: StepGate) -> Self {
        Self {
            events,
            signal,
            gate,
        }
    }

    pub(crate) fn send(&self, event: Event<P>) {
        let _ = self.events.send(event);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.signal.raise();
    }

    pub(crate) fn signal(&self) -> Signal {
        self.signal.clone()
    }

    pub(crate) fn gate(&self) -> StepGate {
        self.gate.clone()
    }
}

impl<P: Pipeline> Clone for Mailbox<P> {
    fn clone(&self) -> Self {
        Self::new(self.events.clone(), self.signal.clone(), self.gate.clone())
    }
}
