//! [`Inbox`]: the manager's end of its mailbox.

use bevy::platform::time::Instant;
use crossbeam_channel::Receiver;

#[cfg(feature = "test_kit")]
use super::tape::{News, Tape};
use crate::{Pipeline, machine::Facts, mailbox::Event, threads::receive_by};

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
        receive_by(&self.events, deadline).ok()
    }

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

    /// What the machine decides on: `facts`, unless a replay knows better. [`None`]: no step in this frame.
    #[cfg_attr(
        not(feature = "test_kit"),
        expect(clippy::unused_self, reason = "only a replay has a tape")
    )]
    pub(super) fn decide(&mut self, facts: Facts) -> Option<Facts> {
        #[cfg(feature = "test_kit")]
        return self.tape.decide(facts);
        #[cfg(not(feature = "test_kit"))]
        Some(facts)
    }

    /// Returns what is due in this frame of a replay and has not arrived.
    #[cfg(feature = "test_kit")]
    pub(super) fn missing(&mut self) -> Vec<News> {
        self.tape.missing(&self.events)
    }
}
