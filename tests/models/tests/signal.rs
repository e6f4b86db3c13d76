//! Workers send and then raise the flag; a frame takes the flag and then what was sent.

#![cfg(loom)]

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    thread,
};

#[derive(Default)]
struct App {
    news: Mutex<Vec<u32>>,
    raised: AtomicBool,
    woken: AtomicUsize,
}

impl App {
    fn send(&self, news: u32) {
        self.news.lock().expect("no panic").push(news);
        if !self.raised.swap(true, AcqRel) {
            self.woken.fetch_add(1, Relaxed);
        }
    }

    /// Returns what is seen in a frame.
    fn frame(&self) -> Vec<u32> {
        if self.raised.load(Acquire) && self.raised.swap(false, AcqRel) {
            std::mem::take(&mut self.news.lock().expect("no panic"))
        } else {
            Vec::new()
        }
    }
}

#[test]
fn news_is_seen_or_the_flag_is_raised() {
    loom::model(|| {
        let app = Arc::new(App::default());
        let workers: Vec<_> = (0..2)
            .map(|news| {
                let app = app.clone();
                thread::spawn(move || app.send(news))
            })
            .collect();
        let mut seen = app.frame();
        for worker in workers {
            worker.join().expect("a worker ends");
        }
        let frames_asked_for = app.woken.load(Relaxed);
        assert!((1..=2).contains(&frames_asked_for));
        // An app that sleeps runs a frame for each time that it was woken, at most one later than that.
        let left = 2 - seen.len();
        assert!(
            left == 0 || app.raised.load(Acquire),
            "news without a frame"
        );
        seen.extend(app.frame());
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}
