//! [`Inbox`]: the manager's end of its mailbox.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::Event;
#[cfg(feature = "test_kit")]
use super::tape::Tape;
use crate::Pipeline;

/// What workers have sent, in its order. Bounded by what the game has asked for: a load sends two events, a job
/// two at most for each time that its model makes room.
pub(super) struct Inbox<P: Pipeline> {
    events: Receiver<Event<P>>,
    /// Writes down what is taken in, or says what may be. Apart: a manager is small, and this is for tests.
    #[cfg(feature = "test_kit")]
    pub(super) tape: Box<Tape<P>>,
}

impl<P: Pipeline> Inbox<P> {
    pub(super) fn new(events: Receiver<Event<P>>) -> Self {
        Self {
            events,
            #[cfg(feature = "test_kit")]
            tape: Box::default(),
        }
    }

    /// Waits for the next event, at the end of the app.
    pub(super) fn next_before(&mut self, deadline: Instant) -> Option<Event<P>> {
        #[cfg(feature = "test_kit")]
        if let Some(event) = self.tape.take_held() {
            return Some(event);
        }
        self.events.recv_deadline(deadline).ok()
    }
}

impl<P: Pipeline> Inbox<P> {
    pub(super) fn is_empty(&self) -> bool {
        #[cfg(feature = "test_kit")]
        if let Some(nothing) = self.tape.has_nothing_due() {
            return nothing;
        }
        self.events.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<Event<P>> {
        #[cfg(feature = "test_kit")]
        if self.tape.replays() {
            return self.tape.next_due();
        }
        let event = self.events.try_recv().ok()?;
        #[cfg(feature = "test_kit")]
        self.tape.note_event(&event);
        Some(event)
    }

    /// Whether everything that is due in this frame of a replay has arrived.
    #[cfg(feature = "test_kit")]
    pub(super) fn has_what_is_due(&mut self) -> bool {
        self.tape.has_what_is_due(&self.events)
    }
}
