//! [`Rest`]: those who move memory about rest while a frame works, and go on while the game waits for the next one.
//!
//! However low its priority, a thread that reads a file or gives memory back costs a frame: the system does not take the
//! processor away in the middle of a page, a thread that has waited long enough gets a turn of some milliseconds all the
//! same, and the caches are shared. A game that is paced by its display waits for longer than all of that takes.
//! What is still to be done when the last system has run goes from thread to thread: whoever was woken up at once would
//! be in its way.
//!
//! Threads are shared by the apps of a process: where one of them has others rest, so does what they do for its
//! neighbours.

use std::{
    sync::{
        Arc, Condvar, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bevy::prelude::*;

use crate::device::sleep_until;

/// Frames that took less have nothing to gain.
const SHORT: Duration = Duration::from_millis(1);

/// A game that was waiting for somebody to press a key does not keep its models waiting.
const LONGEST: Duration = Duration::from_millis(20);

/// A rest goes on after the last system of a frame for so long.
const TAIL: Duration = Duration::from_micros(200);

/// How often those who rest look by themselves whether they still have to: they may miss the end of a frame.
const LOOK: Duration = Duration::from_millis(4);

/// The same for those whom nobody wakes.
const LOOK_UNTOLD: Duration = Duration::from_millis(1);

/// So long at most, over several frames: who always wakes up late, in the next frame, goes on all the same. Then nobody
/// rests for as long.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same where somebody waits for what is dropped.
const PATIENCE_UNTOLD: Duration = LONGEST;

/// How long others rest in each frame. Pure: times in, a time out.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pacing {
    /// How long the game has waited, without what others have rested for it since.
    credit: Duration,
    /// The last rest, at most.
    length: Duration,
}

impl Pacing {
    /// Returns how long others rest in the frame that begins, after the last one took `work` and the game then waited for
    /// `gap`. All together no longer than the game has waited, so they have half of the time at least.
    pub(super) fn rest_in_next(&mut self, work: Duration, gap: Duration) -> Duration {
        let rested = if work < self.length {
            work + TAIL
        } else {
            self.length
        };
        let credit = self.credit.saturating_sub(rested).saturating_add(gap);
        self.credit = credit.min(LONGEST);
        self.length = if work < SHORT {
            Duration::ZERO
        } else {
            self.credit
        };
        self.length
    }
}

/// One for each app; all its loads look at it.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct Rest(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    /// When the rest ends at the latest, in nanoseconds of the process; 0 where there is none.
    until: AtomicU64,
    /// Until then nobody rests, in the same way.
    impatient: AtomicU64,
    resting: AtomicU32,
    /// Only of those who rest: the main thread wakes them without it. Who misses that looks soon.
    lock: Mutex<()>,
    over: Condvar,
}

/// The process's clock starts with its first rest.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn nanos(time: Instant) -> u64 {
    time.saturating_duration_since(*START).as_nanos() as u64
}

impl Rest {
    /// A frame begins, in which others rest for so long at most.
    pub(super) fn begin(&self, now: Instant, length: Duration) {
        let until = if length.is_zero() {
            0
        } else {
            nanos(now + length)
        };
        self.0.until.store(until, Ordering::Release);
    }

    /// The frame ends: a rest that has lasted until now goes on for a moment.
    pub(super) fn end(&self, now: Instant) {
        let lasts = self.is_on(now);
        let until = if lasts { nanos(now + TAIL) } else { 0 };
        self.0.until.store(until, Ordering::Release);
        self.wake_one();
    }

    /// The first of those who rest hears of the end, and each who goes on wakes the next: not all at once.
    fn wake_one(&self) {
        if self.0.resting.load(Ordering::Acquire) > 0 {
            self.0.over.notify_one();
        }
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.0.until.load(Ordering::Acquire) > nanos(now)
    }

    /// When to look again; [`None`] where there is no rest.
    fn look_again(&self, every: Duration) -> Option<Instant> {
        let until = self.0.until.load(Ordering::Acquire);
        if until == 0 {
            return None;
        }
        let now = Instant::now();
        let rests = nanos(now) < until && self.0.impatient.load(Ordering::Acquire) <= nanos(now);
        rests.then(|| (*START + Duration::from_nanos(until)).min(now + every))
    }

    /// Rests on a thread that may be held, as long as somebody wants what it does.
    pub(crate) fn wait_while(&self, is_wanted: impl Fn() -> bool) {
        let begun = Instant::now();
        let mut has_slept = false;
        while is_wanted()
            && let Some(look) = self.look_again(LOOK)
        {
            if begun.elapsed() >= PATIENCE {
                let until = nanos(Instant::now() + PATIENCE);
                self.0.impatient.store(until, Ordering::Release);
                break;
            }
            self.sleep_until_told(look);
            has_slept = true;
        }
        if has_slept {
            self.wake_one();
        }
    }

    #[cfg(test)]
    fn is_impatient(&self) -> bool {
        self.0.impatient.load(Ordering::Acquire) > nanos(Instant::now())
    }

    fn sleep_until_told(&self, look: Instant) {
        let own = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.resting.fetch_add(1, Ordering::AcqRel);
        let left = look.saturating_duration_since(Instant::now());
        drop(self.0.over.wait_timeout(own, left));
        self.0.resting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Rests where others must not be held up.
    pub(crate) async fn pass(&self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE_UNTOLD
            && let Some(look) = self.look_again(LOOK_UNTOLD)
        {
            sleep_until(look).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::block_on;

    const MS: Duration = Duration::from_millis(1);

    /// How long others rest in each of some frames of a game that works and waits.
    fn rests(frames: usize, work: Duration, gap: Duration) -> Vec<Duration> {
        let mut pacing = Pacing::default();
        let rest = |_| pacing.rest_in_next(work, gap);
        (0..frames).map(rest).collect()
    }

    #[test]
    fn others_rest_no_longer_than_the_game_has_waited() {
        let rests = rests(100, 15 * MS, 2 * MS);
        assert_eq!(rests, [2 * MS; 100]);
    }

    #[test]
    fn a_game_that_never_waits_holds_nobody_up() {
        assert_eq!(rests(10, 15 * MS, Duration::ZERO), [Duration::ZERO; 10]);
    }

    #[test]
    fn a_game_that_waits_for_long_has_a_long_frame_for_itself() {
        let mut pacing = Pacing::default();
        let mut rest = |work, gap| pacing.rest_in_next(work, gap);
        assert_eq!(rest(6 * MS, 10 * MS), 10 * MS);
        assert_eq!(rest(6 * MS, 10 * MS), 14 * MS - TAIL);
        assert_eq!(rest(6 * MS, 10 * MS), 18 * MS - 2 * TAIL);
        assert_eq!(rest(6 * MS, 10 * MS), LONGEST);
        assert_eq!(rest(40 * MS, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn short_frames_and_long_waits_hold_nobody_up() {
        assert_eq!(rests(3, MS / 2, 10 * MS), [Duration::ZERO; 3]);
        assert_eq!(rests(1, 6 * MS, Duration::from_secs(5)), [LONGEST]);
        assert_eq!(rests(2, 6 * MS, Duration::MAX), [LONGEST; 2]);
    }

    #[test]
    fn a_rest_ends_a_moment_after_its_frame() {
        let rest = Rest::default();
        let now = *START;
        assert!(!rest.is_on(now));
        rest.begin(now, Duration::from_secs(3600));
        assert!(rest.is_on(now + Duration::from_secs(3599)));
        rest.end(now + 5 * MS);
        assert!(rest.is_on(now + 5 * MS) && !rest.is_on(now + 5 * MS + TAIL));
    }

    #[test]
    fn all_who_rest_go_on_after_their_frame() {
        // Whoever missed the end would look by himself: so often, all together, that is no accident.
        let (mut fastest, rest) = (Duration::MAX, Rest::default());
        for _ in 0..20 {
            rest.begin(Instant::now(), Duration::from_secs(3600));
            let rests = || {
                let other = rest.clone();
                std::thread::spawn(move || other.wait_while(|| true))
            };
            let threads = [rests(), rests(), rests()];
            while rest.0.resting.load(Ordering::Acquire) < 3 {
                std::thread::yield_now();
            }
            let ended = Instant::now();
            rest.end(ended);
            for thread in threads {
                thread.join().expect("it ends");
            }
            fastest = fastest.min(ended.elapsed());
        }
        assert!((TAIL..LOOK).contains(&fastest), "{fastest:?}");
    }

    #[test]
    fn a_rest_that_was_over_before_its_frame_does_not_begin_again() {
        let rest = Rest::default();
        let now = Instant::now();
        rest.begin(now, MS);
        rest.end(now + MS);
        assert!(!rest.is_on(now));
    }

    #[test]
    fn nobody_rests_for_what_nobody_wants() {
        let rest = Rest::default();
        rest.begin(Instant::now(), Duration::from_secs(3600));
        rest.wait_while(|| false);
        assert!(!rest.is_impatient());
        let asked = std::cell::Cell::new(0);
        rest.wait_while(|| asked.replace(asked.get() + 1) < 2);
        assert!(asked.get() == 3 || rest.is_impatient(), "{asked:?}");
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

    #[test]
    fn who_has_rested_for_long_goes_on_and_does_not_rest_again_at_once() {
        let rest = Rest::default();
        let begun = Instant::now();
        rest.begin(begun, Duration::from_secs(3600));
        rest.wait_while(|| true);
        assert!(begun.elapsed() >= PATIENCE && rest.is_impatient());
        let asked = std::cell::Cell::new(0);
        rest.wait_while(|| asked.replace(asked.get() + 1) < 10);
        assert!(asked.get() == 1 || !rest.is_impatient(), "{asked:?}");
    }

    #[test]
    fn what_is_dropped_does_not_wait_for_long() {
        let rest = Rest::default();
        let begun = Instant::now();
        rest.begin(begun, Duration::from_secs(3600));
        block_on(rest.pass());
        assert!(begun.elapsed() >= PATIENCE_UNTOLD && !rest.is_impatient());
    }
}
