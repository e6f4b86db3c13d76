//! [`Rest`]: those who move memory about rest while a frame works, and go on while the game waits for the next one.
//!
//! However low its priority, a thread that reads a file or gives memory back costs a frame: the system does not take the
//! processor away in the middle of a page, a thread that has waited long enough gets a turn of some milliseconds all the
//! same, and the caches are shared. A game that is paced by its display waits for longer than all of that takes.
//! What is still to be done when the last system has run goes from thread to thread: whoever was woken up at once would
//! be in its way. And what will not be done before the next frame is not begun: a step is expected to take as long as the
//! same thread's last one, since memory that is slow to come by lies side by side.
//!
//! Threads are shared by the apps of a process: where one of them has others rest, so does what they do for its
//! neighbours.

use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bevy::prelude::*;

use super::pacing::{LONGEST, NextFrame};
use crate::{device::sleep_until, threads::cpu_time};

/// A rest goes on after the last system of a frame for so long.
pub(super) const TAIL: Duration = Duration::from_micros(200);

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
    /// When the rest ends at the latest, in nanoseconds of the process; 0 where there is none.
    until: AtomicU64,
    /// When the next frame is expected, in the same way.
    next: AtomicU64,
    margin: AtomicU64,
    /// Until then nobody rests, in the same way.
    impatient: AtomicU64,
    resting: AtomicU32,
    /// Only of those who rest: the main thread wakes them without it. Who misses that looks soon.
    lock: Mutex<()>,
    over: Condvar,
}

/// The process's clock starts with its first rest.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// The processor's time of the thread when it last went on.
    static WENT_ON: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn nanos(time: Instant) -> u64 {
    time.saturating_duration_since(*START).as_nanos() as u64
}

impl Rest {
    /// A frame begins, in which others rest for so long at most. The game has waited for `gap` before it, and the next one
    /// is expected after `period`.
    pub(super) fn begin(&self, now: Instant, length: Duration, period: Duration, gap: Duration) {
        let margin = NextFrame::margin(gap).as_nanos() as u64;
        self.0.margin.store(margin, Ordering::Release);
        self.0.next.store(nanos(now + period), Ordering::Release);
        self.0.until.store(nanos(now + length), Ordering::Release);
    }

    /// A frame begins for which nobody rests.
    pub(super) fn begin_without(&self) {
        self.0.next.store(0, Ordering::Release);
        self.0.until.store(0, Ordering::Release);
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

    /// When to look again, for somebody whose next step takes so long; [`None`] where there is no rest.
    fn look_again(&self, every: Duration, needs: Duration) -> Option<Instant> {
        let now = Instant::now();
        let at = nanos(now);
        if self.0.impatient.load(Ordering::Acquire) > at {
            return None;
        }
        let mut until = self.0.until.load(Ordering::Acquire);
        if until <= at {
            until = self.until_next(at, needs)?;
        }
        Some((*START + Duration::from_nanos(until)).min(now + every))
    }

    /// Until when to rest for the next frame, where that is near.
    fn until_next(&self, now: u64, needs: Duration) -> Option<u64> {
        let next = NextFrame {
            at: self.0.next.load(Ordering::Acquire),
            margin: self.0.margin.load(Ordering::Acquire),
        };
        next.is_too_near(now, needs).then(|| next.latest())
    }

    /// Whether the game is paced: others may have to rest.
    fn is_for_a_game(&self) -> bool {
        self.0.next.load(Ordering::Acquire) != 0
    }

    /// Rests on a thread that may be held, as long as somebody wants what it does: asked before each step.
    pub(crate) fn wait_while(&self, is_wanted: impl Fn() -> bool) {
        if !self.is_for_a_game() {
            return;
        }
        let needs = cpu_time().saturating_sub(WENT_ON.get());
        if self.has_rested(needs, is_wanted) {
            self.wake_one();
        }
        WENT_ON.set(cpu_time());
    }

    fn has_rested(&self, needs: Duration, is_wanted: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let mut has_rested = false;
        while is_wanted()
            && let Some(look) = self.look_again(LOOK, needs)
        {
            if begun.elapsed() >= PATIENCE {
                let until = nanos(Instant::now() + PATIENCE);
                self.0.impatient.store(until, Ordering::Release);
                break;
            }
            self.sleep_until_told(look);
            has_rested = true;
        }
        has_rested
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
            && let Some(look) = self.look_again(LOOK_UNTOLD, Duration::ZERO)
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
    const HOUR: Duration = Duration::from_secs(3600);

    /// A frame with a rest, and no other one soon.
    fn begin(rest: &Rest, now: Instant, length: Duration) {
        rest.begin(now, length, HOUR, Duration::ZERO);
    }

    #[test]
    fn a_rest_ends_a_moment_after_its_frame() {
        let rest = Rest::default();
        let now = *START;
        assert!(!rest.is_on(now));
        begin(&rest, now, HOUR);
        assert!(rest.is_on(now + Duration::from_secs(3599)));
        rest.end(now + 5 * MS);
        assert!(rest.is_on(now + 5 * MS) && !rest.is_on(now + 5 * MS + TAIL));
    }

    #[test]
    fn all_who_rest_go_on_after_their_frame() {
        // Whoever missed the end would look by himself: so often, all together, that is no accident.
        let (mut fastest, rest) = (Duration::MAX, Rest::default());
        for _ in 0..20 {
            begin(&rest, Instant::now(), HOUR);
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
        begin(&rest, now, MS);
        rest.end(now + MS);
        assert!(!rest.is_on(now));
    }

    #[test]
    fn nobody_rests_for_what_nobody_wants() {
        let rest = Rest::default();
        begin(&rest, Instant::now(), HOUR);
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
        begin(&rest, begun, 5 * MS);
        rest.wait_while(|| true);
        block_on(rest.pass());
        assert!(begun.elapsed() >= 5 * MS);
    }

    #[test]
    fn who_has_rested_for_long_goes_on_and_does_not_rest_again_at_once() {
        let rest = Rest::default();
        let begun = Instant::now();
        begin(&rest, begun, HOUR);
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
        begin(&rest, begun, HOUR);
        block_on(rest.pass());
        assert!(begun.elapsed() >= PATIENCE_UNTOLD && !rest.is_impatient());
    }

    #[test]
    fn a_step_that_is_as_long_as_the_last_one_waits_for_the_frame_that_is_near() {
        let rest = Rest::default();
        let is_wanted = || true;
        begin(&rest, Instant::now(), Duration::ZERO);
        rest.wait_while(is_wanted);
        let last = cpu_time();
        while cpu_time() - last < 30 * MS {
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        rest.begin(begun, Duration::ZERO, 20 * MS, HOUR);
        rest.wait_while(is_wanted);
        assert!(begun.elapsed() >= 20 * MS);
        let begun = Instant::now();
        rest.begin(begun, Duration::ZERO, HOUR, HOUR);
        assert!(!rest.has_rested(MS, is_wanted), "an hour is left");
    }

    #[test]
    fn nobody_rests_where_no_game_is_paced() {
        let rest = Rest::default();
        rest.begin(Instant::now(), HOUR, HOUR, HOUR);
        rest.begin_without();
        rest.wait_while(|| unreachable!("nothing is asked"));
    }
}
