//! A worker overwrites the latest step; a game takes it when it looks.

#![cfg(loom)]

use concurrent_queue::ConcurrentQueue;
use loom::{sync::Arc, thread};

#[test]
fn the_latest_step_is_never_lost_and_none_comes_twice_or_late() {
    loom::model(|| {
        let slot = Arc::new(ConcurrentQueue::bounded(1));
        let worker = {
            let slot = slot.clone();
            thread::spawn(move || {
                for step in 1..=2 {
                    let _ = slot.force_push(step).expect("it is open");
                }
            })
        };
        let mut seen = Vec::new();
        seen.extend(slot.pop());
        worker.join().expect("the worker ends");
        seen.extend(slot.pop());
        assert_eq!(seen.last(), Some(&2), "{seen:?}");
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!(slot.pop().is_err(), "one place");
    });
}

/// A despawned job closes its slot while the worker reports.
#[test]
fn a_worker_whose_game_has_left_goes_on() {
    loom::model(|| {
        let slot = Arc::new(ConcurrentQueue::bounded(1));
        let worker = {
            let slot = slot.clone();
            thread::spawn(move || {
                for step in 1..=2 {
                    if slot.force_push(step).is_err() {
                        assert!(slot.is_closed());
                    }
                }
            })
        };
        slot.close();
        worker.join().expect("the worker ends");
    });
}
