//! [`Pacing`]: how long others rest in a game's frames, and before them.

use std::time::Duration;

/// A rest goes on after the last system of a frame for so long.
pub(super) const TAIL: Duration = Duration::from_micros(200);

/// Frames that took less have nothing to gain.
const SHORT: Duration = Duration::from_millis(1);

/// A game that was waiting for somebody to press a key does not keep its models waiting.
pub(super) const LONGEST: Duration = Duration::from_millis(20);

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
    /// `gap`. All together no longer than the game has waited; with what they rest before frames, they have three eighths
    /// of the time at least.
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

/// Nobody rests any more for a frame that is so late.
const LATE: Duration = Duration::from_millis(2);

/// The next frame, as it is expected, in nanoseconds of a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NextFrame {
    pub(super) at: u64,
    /// Others rest no longer for it.
    pub(super) margin: u64,
}

impl NextFrame {
    /// It begins as long after the last frame as that did after the one before: `at`. Before that frame the game waited for
    /// `gap`: others rest for a quarter of that at most.
    pub(super) fn new(at: u64, gap: Duration) -> Self {
        let margin = (gap / 4).as_nanos() as u64;
        Self { at, margin }
    }

    /// Until when somebody rests whose next step takes so long; [`None`] where it is done before the frame.
    pub(super) fn rest_until(self, now: u64, needs: Duration) -> Option<u64> {
        let late = self.at + self.margin.min(LATE.as_nanos() as u64);
        let needs = self.margin.min(needs.as_nanos() as u64);
        (now < late && now + needs > self.at).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_step_that_would_reach_into_the_next_frame_waits_for_it() {
        let nanos = |time: Duration| time.as_nanos() as u64;
        let at = nanos(100 * MS);
        let next = NextFrame::new(at, 10 * MS);
        let rests = |before, needs| next.rest_until(at - nanos(before), needs);
        assert_eq!(rests(MS, MS / 2), None);
        assert_eq!(rests(MS / 2, MS), Some(nanos(102 * MS)));
        assert_eq!(rests(3 * MS, 50 * MS), None, "more than a quarter");
        assert_eq!(rests(2 * MS, 50 * MS), Some(nanos(102 * MS)));
        assert!(next.rest_until(at + 1, Duration::ZERO).is_some(), "late");
        assert_eq!(next.rest_until(nanos(102 * MS), MS), None, "too late");
    }

    #[test]
    fn a_game_that_hardly_waits_has_hardly_anybody_wait_for_its_next_frame() {
        let next = NextFrame::new(1_000_000, Duration::from_micros(8));
        assert_eq!(next.rest_until(990_000, MS), None);
        assert_eq!(next.rest_until(999_000, MS), Some(1_002_000));
    }
}
