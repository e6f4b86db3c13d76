//! Workers send and raise; an app that sleeps looks when it is woken: no news is left without a frame to come.

#![cfg(loom)]

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    thread,
};

/// `Signal`, the news that it is about, and an event loop that counts its wake-ups.
#[derive(Default)]
struct App {
    news: Mutex<Vec<u32>>,
    flag: AtomicBool,
    woken: AtomicBool,
    frames_to_come: AtomicUsize,
}

impl App {
    /// `Mailbox::send`, with `Signal::raise`.
    fn send(&self, news: u32) {
        self.news.lock().expect("no panic").push(news);
        self.flag.store(true, Release);
        if !self.woken.swap(true, AcqRel) {
            self.frames_to_come.fetch_add(1, AcqRel);
        }
    }

    /// Returns what is seen in a frame: `Signal::look`, then `Signal::take`.
    fn frame(&self) -> Vec<u32> {
        self.frames_to_come.swap(0, AcqRel);
        self.woken.swap(false, AcqRel);
        if self.flag.load(Acquire) && self.flag.swap(false, AcqRel) {
            std::mem::take(&mut self.news.lock().expect("no panic"))
        } else {
            Vec::new()
        }
    }
}

/// Runs `workers` beside so many frames; then the app sleeps, and runs only the frames that it was woken for.
fn assert_all_is_seen(workers: &'static [&'static [u32]], frames: usize) {
    loom::model(move || {
        let app = Arc::new(App::default());
        let send = |news: &'static [u32]| {
            let app = app.clone();
            thread::spawn(move || news.iter().for_each(|news| app.send(*news)))
        };
        let workers: Vec<_> = workers.iter().map(|news| send(news)).collect();
        let mut seen: Vec<_> = (0..frames).flat_map(|_| app.frame()).collect();
        for worker in workers {
            worker.join().expect("a worker ends");
        }
        while app.frames_to_come.load(Acquire) > 0 {
            seen.extend(app.frame());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1], "news without a frame");
    });
}

#[test]
fn news_of_two_workers_is_seen_or_a_frame_comes() {
    assert_all_is_seen(&[&[0], &[1]], 1);
}

#[test]
fn news_that_comes_between_two_frames_is_seen_or_a_frame_comes() {
    assert_all_is_seen(&[&[0, 1]], 2);
}
