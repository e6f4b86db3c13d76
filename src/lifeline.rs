//! Dropping is cancelling: a [`Lifeline`] and its [`Watch`].

use std::convert::Infallible;

use async_channel::{Receiver, Sender, bounded};

/// The owner's end: dropping it tells every [`Watch`].
#[derive(Debug)]
pub(crate) struct Lifeline {
    _sender: Sender<Infallible>,
}

/// The worker's end: it can be asked between chunks, and awaited.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Receiver<Infallible>);

impl Lifeline {
    pub(crate) fn new() -> (Self, Watch) {
        let (sender, receiver) = bounded(1);
        (Self { _sender: sender }, Watch(receiver))
    }
}

impl Watch {
    /// Whether the owner has let go.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when the owner lets go.
    pub(crate) async fn cut(&self) {
        while self.0.recv().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn dropping_the_lifeline_is_seen_by_every_watch() {
        let (lifeline, watch) = Lifeline::new();
        let other = watch.clone();
        assert!(!watch.is_cut());
        assert!(block_on(poll_once(watch.cut())).is_none());
        drop(lifeline);
        assert!(watch.is_cut() && other.is_cut());
        block_on(other.cut());
    }
}
