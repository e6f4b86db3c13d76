//! [`Rest`]: those who move memory about rest while a frame works, and go on while the game waits for the next one.
//!
//! However low its priority, a thread that reads a file or gives memory back costs a frame: the system does not take the
//! processor away in the middle of a page, a thread that has waited long enough gets a turn of some milliseconds all the
//! same, and the caches are shared. A game that is paced by its display waits for longer than all of that takes.
//! What is still to be done when the last system has run goes from thread to thread: whoever was woken up at once would
//! be in its way. And what would reach into the next frame is not begun: a step is expected to take as much of the
//! processor's time as the same thread's last one, since memory that is slow to come by lies side by side.
//!
//! Threads are shared by the apps of a process: where one of them has others rest, so does what they do for its
//! neighbours.

use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bevy::{platform::time::Instant, prelude::*};

use super::{
    clock::{nanos, time},
    pacing::{LONGEST, NextFrame, TAIL},
};
use crate::{device::sleep_until, threads::cpu_time};

/// How often those who rest look by themselves whether they still have to: they may miss the end of a frame.
const LOOK: Duration = Duration::from_millis(4);

/// The same for those whom nobody wakes.
const LOOK_UNTOLD: Duration = Duration::from_millis(1);

/// So long at most, over several frames: who always wakes up late, in the next frame, goes on all the same. Then nobody
/// rests for as long.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same where somebody waits for what is dropped.
const PATIENCE_UNTOLD: Duration = LONGEST;

/// One for each app; all its loads look at it.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct Rest(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    /// When the rest ends at the latest, on the guard's clock; 0 where there is none.
    until: AtomicU64,
    /// When the next frame is expected, in the same way, and how long others rest for it; only while the game waits.
    next: AtomicU64,
    margin: AtomicU64,
    /// Until then nobody rests, in the same way.
    impatient: AtomicU64,
    resting: AtomicU32,
    /// Only of those who rest: the main thread wakes them without it. Who misses that looks soon.
    lock: Mutex<()>,
    over: Condvar,
}

thread_local! {
    /// The processor's time of the thread when it last went on; what it did before that is no step.
    static WENT_ON: Cell<Duration> = const { Cell::new(Duration::MAX) };
}

impl Rest {
    /// A frame begins, in which others rest for so long at most.
    pub(super) fn begin(&self, now: Instant, length: Duration) {
        let until = if length.is_zero() {
            0
        } else {
            nanos(now + length)
        };
        self.0.next.store(0, Ordering::Release);
        self.0.until.store(until, Ordering::Release);
    }

    /// The frame ends: a rest that has lasted until now goes on for a moment. The next frame is expected at `next`, and the
    /// game has waited for `gap` before this one.
    pub(super) fn end(&self, now: Instant, next: Instant, gap: Duration) {
        if self.is_paced() {
            let next = NextFrame::new(nanos(next), gap);
            self.0.margin.store(next.margin, Ordering::Release);
            self.0.next.store(next.at, Ordering::Release);
        }
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

    /// When to look again, for somebody whose next step takes so long; [`None`] where there is no rest.
    fn look_again(&self, every: Duration, needs: Duration) -> Option<Instant> {
        if !self.is_paced() {
            return None;
        }
        let now = Instant::now();
        let at = nanos(now);
        if self.0.impatient.load(Ordering::Acquire) > at {
            return None;
        }
        let mut until = self.0.until.load(Ordering::Acquire);
        if until <= at {
            until = self.next()?.rest_until(at, needs)?;
        }
        Some(time(until).min(now + every))
    }

    fn next(&self) -> Option<NextFrame> {
        let at = self.0.next.load(Ordering::Acquire);
        let margin = self.0.margin.load(Ordering::Acquire);
        (at != 0).then_some(NextFrame { at, margin })
    }

    /// Whether a game waits between its frames, which others leave to it.
    fn is_paced(&self) -> bool {
        self.0.until.load(Ordering::Acquire) != 0 || self.0.next.load(Ordering::Acquire) != 0
    }

    /// Rests on a thread that may be held, as long as somebody wants what it does: asked before each step.
    pub(crate) fn wait_while(&self, is_wanted: impl Fn() -> bool) {
        if !self.is_paced() {
            WENT_ON.set(Duration::MAX);
            return;
        }
        let needs = cpu_time().saturating_sub(WENT_ON.get());
        if self.rest(needs, is_wanted) {
            self.wake_one();
        }
        WENT_ON.set(cpu_time());
    }

    /// Returns whether there was a rest.
    fn rest(&self, needs: Duration, is_wanted: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let mut has_slept = false;
        while is_wanted()
            && let Some(look) = self.look_again(LOOK, needs)
        {
            if begun.elapsed() >= PATIENCE {
                let until = nanos(Instant::now() + PATIENCE);
                self.0.impatient.store(until, Ordering::Release);
                break;
            }
            self.sleep_until_told(look);
            has_slept = true;
        }
        has_slept
    }

    #[cfg(test)]
    fn is_impatient(&self) -> bool {
        self.0.impatient.load(Ordering::Acquire) > nanos(Instant::now())
    }

    fn sleep_until_told(&self, look: Instant) {
        // Short sleeps are exact on every platform, and waits on a condition are not on Windows.
        let left = look.saturating_duration_since(Instant::now());
        if left <= TAIL {
            return std::thread::sleep(left);
        }
        let own = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.resting.fetch_add(1, Ordering::AcqRel);
        drop(self.0.over.wait_timeout(own, left));
        self.0.resting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Rests where others must not be held up.
    pub(crate) async fn pass(&self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE_UNTOLD
            && let Some(look) = self.look_again(LOOK_UNTOLD, Duration::ZERO)
        {
            sleep_until(look).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::block_on, frame_guard::clock::START};

    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);

    /// The end of a frame, where no other one is near.
    fn end(rest: &Rest, now: Instant) {
        rest.end(now, now + HOUR, Duration::ZERO);
    }

    #[test]
    fn a_rest_ends_a_moment_after_its_frame() {
        let rest = Rest::default();
        let now = *START;
        assert!(!rest.is_on(now));
        rest.begin(now, HOUR);
        assert!(rest.is_on(now + Duration::from_secs(3599)));
        end(&rest, now + 5 * MS);
        assert!(rest.is_on(now + 5 * MS) && !rest.is_on(now + 5 * MS + TAIL));
    }

    // Timers of Windows take up to 16 ms.
    #[cfg(not(windows))]
    #[test]
    fn all_who_rest_go_on_after_their_frame() {
        // Whoever missed the end would look by himself: so often, all together, that is no accident.
        let (mut fastest, rest) = (Duration::MAX, Rest::default());
        for _ in 0..20 {
            rest.begin(Instant::now(), HOUR);
            let rests = || {
                let other = rest.clone();
                std::thread::spawn(move || other.wait_while(|| true))
            };
            let threads = [rests(), rests(), rests()];
            while rest.0.resting.load(Ordering::Acquire) < 3 {
                std::thread::yield_now();
            }
            let ended = Instant::now();
            end(&rest, ended);
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
        end(&rest, now + MS);
        assert!(!rest.is_on(now));
    }

    #[test]
    fn nobody_rests_for_what_nobody_wants() {
        let rest = Rest::default();
        rest.begin(Instant::now(), HOUR);
        rest.wait_while(|| false);
        assert!(!rest.is_impatient());
        let asked = Cell::new(0);
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
        rest.begin(begun, HOUR);
        rest.wait_while(|| true);
        assert!(begun.elapsed() >= PATIENCE && rest.is_impatient());
        let asked = Cell::new(0);
        rest.wait_while(|| asked.replace(asked.get() + 1) < 10);
        assert!(asked.get() == 1 || !rest.is_impatient(), "{asked:?}");
    }

    #[test]
    fn what_is_dropped_does_not_wait_for_long() {
        let rest = Rest::default();
        let begun = Instant::now();
        rest.begin(begun, HOUR);
        block_on(rest.pass());
        assert!(begun.elapsed() >= PATIENCE_UNTOLD && !rest.is_impatient());
    }

    /// A rest between two frames, of which the next is expected after `wait`.
    fn between_frames(wait: Duration) -> Rest {
        let rest = Rest::default();
        let now = Instant::now();
        rest.begin(now, MS);
        rest.end(now + MS, now + MS + wait, HOUR);
        rest
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    #[test]
    fn a_step_is_expected_to_take_as_long_as_the_last_one() {
        let rest = between_frames(20 * MS);
        let at_first = cpu_time();
        rest.wait_while(|| true);
        while cpu_time() - at_first < 30 * MS {
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        let rest = between_frames(20 * MS);
        rest.wait_while(|| true);
        let waited = begun.elapsed();
        assert!(waited >= 21 * MS, "{waited:?}");
    }

    #[test]
    fn a_step_that_is_done_before_the_next_frame_is_begun() {
        assert!(!between_frames(HOUR).rest(MS, || true));
        assert!(between_frames(20 * MS).rest(HOUR, || true));
    }

    #[test]
    fn nobody_rests_where_no_game_waits() {
        let rest = between_frames(HOUR);
        rest.begin(Instant::now(), Duration::ZERO);
        rest.end(Instant::now(), Instant::now(), HOUR);
        rest.wait_while(|| unreachable!("nothing is asked"));
    }
}
