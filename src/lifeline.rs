//! Dropping is cancelling: a [`Lifeline`] and its [`Watch`].

use std::convert::Infallible;

use async_channel::{Receiver, Sender, bounded};
use futures_lite::future::{or, pending};

mod drain;
pub(crate) use drain::DrainOnDrop;

/// The owner's end: dropping it tells every [`Watch`].
#[derive(Debug)]
pub(crate) struct Lifeline {
    _sender: Sender<Infallible>,
}

/// The worker's end: it can be asked between chunks, and awaited.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    own: Receiver<Infallible>,
    /// What it depends on besides: a load ends with its app.
    other: Option<Receiver<Infallible>>,
}

impl Lifeline {
    pub(crate) fn new() -> (Self, Watch) {
        let (sender, receiver) = bounded(1);
        let watch = Watch {
            own: receiver,
            other: None,
        };
        (Self { _sender: sender }, watch)
    }
}

impl Watch {
    /// Watches another owner, too.
    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            other: Some(other.own.clone()),
            ..self
        }
    }

    /// Watches its own owner only.
    pub(crate) fn alone(self) -> Self {
        Self {
            other: None,
            ..self
        }
    }

    /// Whether an owner has let go.
    pub(crate) fn is_cut(&self) -> bool {
        self.own.is_closed() || self.other.as_ref().is_some_and(Receiver::is_closed)
    }

    /// Ends when an owner lets go.
    pub(crate) async fn cut(&self) {
        let other = async {
            match &self.other {
                Some(other) => closed(other).await,
                None => pending().await,
            }
        };
        or(closed(&self.own), other).await;
    }
}

async fn closed(receiver: &Receiver<Infallible>) {
    while receiver.recv().await.is_ok() {}
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

    #[test]
    fn a_watch_of_two_lifelines_ends_with_either() {
        for first in [true, false] {
            let ((load, watch), (app, app_watch)) = (Lifeline::new(), Lifeline::new());
            let watch = watch.and(&app_watch);
            assert!(!watch.is_cut());
            let _other = if first {
                (drop(load), app).1
            } else {
                (drop(app), load).1
            };
            assert!(watch.is_cut());
            block_on(watch.cut());
        }
    }
}
