//! [`Rest`]: those who move memory about rest while a frame works, and go on while the game waits for the next one.
//!
//! However low its priority, a thread that reads a file or gives memory back costs a frame: the system does not take the
//! processor away in the middle of a page, a thread that has waited long enough gets a turn of some milliseconds all the
//! same, and the caches are shared. A game that is paced by its display waits for longer than all of that takes.
//!
//! Threads are shared by the apps of a process: where one of them has others rest, so does what they do for its
//! neighbours.

use std::{
    sync::{
        Arc, Condvar, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bevy::prelude::*;

use crate::device::sleep_until;

/// Frames that took less have nothing to gain.
const SHORT: Duration = Duration::from_millis(1);

/// A game that was waiting for somebody to press a key does not keep its models waiting.
const LONGEST: Duration = Duration::from_millis(20);

/// How often those who rest look by themselves whether they still have to.
const LOOK: Duration = Duration::from_millis(1);

/// So often, at most: who always wakes up late, in the next frame, goes on all the same.
const MOST_LOOKS: u32 = 100;

/// How long others rest in a frame, after the last one took `work` and the game then waited for `gap`: no longer than
/// that, so they have half of the time at least.
pub(super) fn length(work: Duration, gap: Duration) -> Duration {
    if work < SHORT {
        Duration::ZERO
    } else {
        gap.min(LONGEST)
    }
}

/// One for each app; all its loads look at it.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct Rest(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    /// When the rest ends at the latest, in nanoseconds of the process; 0 between frames.
    until: AtomicU64,
    /// Whether there was a rest in the last frame.
    spares: AtomicBool,
    resting: AtomicU32,
    /// Only of those who rest: the main thread wakes them without it. Who misses that looks soon.
    lock: Mutex<()>,
    over: Condvar,
}

/// The process's clock starts with its first rest.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Rest {
    pub(super) fn begin(&self, now: Instant, length: Duration) {
        let spares = !length.is_zero();
        self.0.spares.store(spares, Ordering::Relaxed);
        if spares {
            let until = (now + length).saturating_duration_since(*START);
            let nanos = until.as_nanos() as u64;
            self.0.until.store(nanos, Ordering::Release);
        }
    }

    pub(super) fn end(&self) {
        self.0.until.store(0, Ordering::Release);
        if self.0.resting.load(Ordering::Acquire) > 0 {
            self.0.over.notify_all();
        }
    }

    /// Whether there are frames to spare: then what the system does in one go is to be short.
    pub(crate) fn spares_frames(&self) -> bool {
        self.0.spares.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn has_begun(&self) -> bool {
        self.0.until.load(Ordering::Acquire) > 0
    }

    /// When to look again; [`None`] where nobody rests.
    fn look_again(&self) -> Option<Instant> {
        let until = self.0.until.load(Ordering::Acquire);
        if until == 0 {
            return None;
        }
        let (now, until) = (Instant::now(), *START + Duration::from_nanos(until));
        (now < until).then(|| until.min(now + LOOK))
    }

    /// Rests on a thread that may be held, as long as somebody wants what it does.
    pub(crate) fn wait_while(&self, is_wanted: impl Fn() -> bool) {
        let mut looks = 0..MOST_LOOKS;
        while looks.next().is_some()
            && is_wanted()
            && let Some(until) = self.look_again()
        {
            let own = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.resting.fetch_add(1, Ordering::AcqRel);
            let left = until.saturating_duration_since(Instant::now());
            drop(self.0.over.wait_timeout(own, left));
            self.0.resting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Rests where others must not be held up.
    pub(crate) async fn pass(&self) {
        let mut looks = 0..MOST_LOOKS;
        while looks.next().is_some()
            && let Some(until) = self.look_again()
        {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::block_on;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn others_rest_no_longer_than_the_game_has_waited() {
        assert_eq!(length(6 * MS, 10 * MS), 10 * MS);
        assert_eq!(length(15 * MS, 2 * MS), 2 * MS);
        assert_eq!(length(15 * MS, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn short_frames_and_long_waits_hold_nobody_up() {
        assert_eq!(length(MS / 2, 10 * MS), Duration::ZERO);
        assert_eq!(length(6 * MS, Duration::from_secs(5)), LONGEST);
    }

    #[test]
    fn a_rest_ends_with_its_frame() {
        let rest = Rest::default();
        assert!(!rest.has_begun());
        rest.begin(Instant::now(), Duration::from_secs(3600));
        assert!(rest.has_begun() && rest.spares_frames());
        let other = rest.clone();
        let rests = std::thread::spawn(move || {
            other.wait_while(|| true);
            block_on(other.pass());
        });
        rest.end();
        rests.join().expect("it ends");
    }

    #[test]
    fn nobody_rests_for_what_nobody_wants() {
        let rest = Rest::default();
        rest.begin(Instant::now(), Duration::from_secs(3600));
        let asked = std::cell::Cell::new(0);
        rest.wait_while(|| asked.replace(asked.get() + 1) < 2);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn a_rest_ends_by_itself_in_a_long_frame() {
        let rest = Rest::default();
        let begun = Instant::now();
        rest.begin(begun, 5 * MS);
        rest.wait_while(|| true);
        block_on(rest.pass());
        assert!(begun.elapsed() >= 5 * MS);
    }
}
