//! [`Pacing`]: how long others rest in a game's frames, and before them.

use std::time::Duration;

use super::rest::TAIL;

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

/// The next frame, as it is expected: as long after the last one began as that after the one before. In nanoseconds of a
/// clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextFrame {
    pub(super) at: u64,
    /// Others rest no longer before it.
    pub(super) margin: u64,
}

impl NextFrame {
    /// Nobody rests any more for a frame that is so late.
    pub(super) const LATE: Duration = Duration::from_millis(2);

    /// Others rest for no more than a quarter of the time for which the game waits.
    pub(super) fn margin(gap: Duration) -> Duration {
        gap / 4
    }

    /// Whether what takes so long would not be done before it.
    pub(super) fn is_too_near(self, now: u64, needs: Duration) -> bool {
        let needs = (needs.as_nanos() as u64).min(self.margin);
        now < self.latest() && now.saturating_add(needs) > self.at
    }

    /// When it is late.
    pub(super) fn latest(self) -> u64 {
        self.at + Self::LATE.as_nanos() as u64
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
    fn what_would_not_be_done_before_the_next_frame_is_not_begun() {
        let at = Duration::from_millis(100).as_nanos() as u64;
        let margin = NextFrame::margin(10 * MS).as_nanos() as u64;
        let next = NextFrame { at, margin };
        let is_too_near = |before: Duration, needs| {
            let now = at - before.as_nanos() as u64;
            next.is_too_near(now, needs)
        };
        assert!(!is_too_near(MS, MS / 2));
        assert!(is_too_near(MS / 2, MS));
        assert!(!is_too_near(3 * MS, 50 * MS), "more than a quarter");
        assert!(is_too_near(2 * MS, 50 * MS));
        assert!(!next.is_too_near(next.latest(), MS));
    }
}
