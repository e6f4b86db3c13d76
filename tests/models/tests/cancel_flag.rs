//! Dropping a lifeline closes a channel; a reader asks between its chunks.

#![cfg(loom)]

use std::convert::Infallible;

use concurrent_queue::ConcurrentQueue;
use loom::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
};

#[test]
fn whoever_asks_after_the_cut_sees_it() {
    loom::model(|| {
        let channel = Arc::new(ConcurrentQueue::<Infallible>::bounded(1));
        let cut = Arc::new(AtomicBool::new(false));
        let reader = {
            let (channel, cut) = (channel.clone(), cut.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let is_cut = cut.load(SeqCst);
                    assert!(!is_cut || channel.is_closed(), "a chunk after the cut");
                }
            })
        };
        channel.close();
        cut.store(true, SeqCst);
        reader.join().expect("the reader ends");
        assert!(channel.is_closed());
    });
}

/// Two owners: a load's and its app's. Whichever lets go first is seen, and both may.
#[test]
fn either_of_two_owners_ends_a_reader() {
    loom::model(|| {
        let owners = [0, 1].map(|_| Arc::new(ConcurrentQueue::<Infallible>::bounded(1)));
        let chunks = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = owners
            .iter()
            .cloned()
            .map(|owner| thread::spawn(move || owner.close()))
            .collect();
        let wanted = || !owners.iter().any(|owner| owner.is_closed());
        while wanted() && chunks.load(Relaxed) < 2 {
            chunks.fetch_add(1, Relaxed);
        }
        let closed: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        assert!(closed.into_iter().all(|first| first.expect("it ends")));
        assert!(!wanted(), "what was read is not built");
    });
}
