//! When inference pauses. Pure: frames in, a decision out.

use std::time::Duration;

/// The first pause, in a game that has just begun to miss its target.
const SHORT: Duration = Duration::from_millis(100);

/// The longest: each pause that was in vain doubles the next.
const LONG: Duration = Duration::from_secs(2);

/// So many frames without a step say what the game takes by itself.
const ENOUGH: u32 = 5;

/// Where they cannot be had, a pause ends all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a game that is slow by itself is left alone, at first and at most.
const SLOW: Duration = Duration::from_secs(2);
const VERY_SLOW: Duration = Duration::from_secs(8);

/// What a frame was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// When it ended.
    pub(super) end: Duration,
    /// What it took.
    pub(super) work: Duration,
    /// Whether a step ran beside it.
    pub(super) stepped: bool,
}

/// What the guard does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Steps run.
    Open { since: Duration },
    /// Steps wait. Frames without one, which still come between those that nobody holds back, are counted.
    Pausing {
        since: Duration,
        alone: u32,
        late: u32,
    },
    /// The game misses its target without steps, too: pausing would only cost the model its time. Frames within the
    /// target, one after the other, are counted.
    Slow { until: Duration, well: u32 },
}

/// Compares frames with steps to frames without.
#[derive(Debug)]
pub(super) struct Policy {
    target: Duration,
    mode: Mode,
    /// How long the next pause is.
    pause: Duration,
    /// How long a slow game is left alone the next time.
    slow: Duration,
}

impl Policy {
    pub(super) fn new(target: Duration) -> Self {
        Self {
            target,
            mode: Mode::Open {
                since: Duration::ZERO,
            },
            pause: SHORT,
            slow: SLOW,
        }
    }

    /// Looks at a frame; returns whether steps are to wait from now on.
    pub(super) fn pauses_after(&mut self, frame: Frame) -> bool {
        let is_late = frame.work > self.target;
        self.mode = match self.mode {
            Mode::Open { since } if is_late && frame.stepped => self.begin_pause(frame, since),
            Mode::Pausing { since, alone, late } => {
                let counts = u32::from(!frame.stepped);
                let (alone, late) = (alone + counts, late + counts * u32::from(is_late));
                self.go_on_pausing(frame, since, alone, late)
            }
            Mode::Slow { until, well } => self.look_at_slow(frame, until, well),
            same => same,
        };
        matches!(self.mode, Mode::Pausing { .. })
    }

    /// A game that was well for as long as the last pause starts anew.
    fn begin_pause(&mut self, frame: Frame, open_since: Duration) -> Mode {
        if frame.end.saturating_sub(open_since) > LONG {
            (self.pause, self.slow) = (SHORT, SLOW);
        }
        Mode::Pausing {
            since: frame.end,
            alone: 0,
            late: 0,
        }
    }

    /// A game that is well beside its steps is not slow any more.
    fn look_at_slow(&mut self, frame: Frame, until: Duration, well: u32) -> Mode {
        let well = if frame.work > self.target {
            0
        } else {
            well + 1
        };
        if well >= ENOUGH {
            self.slow = SLOW;
        }
        if well >= ENOUGH || frame.end >= until {
            return Mode::Open { since: frame.end };
        }
        Mode::Slow { until, well }
    }

    fn go_on_pausing(&mut self, frame: Frame, since: Duration, alone: u32, late: u32) -> Mode {
        let paused = frame.end.saturating_sub(since);
        if alone >= ENOUGH && late * 2 > alone {
            let until = frame.end + self.slow;
            self.slow = (self.slow * 2).min(VERY_SLOW);
            return Mode::Slow { until, well: 0 };
        }
        let is_known = alone >= ENOUGH || paused >= PATIENCE;
        if paused >= self.pause && is_known {
            self.pause = (self.pause * 2).min(LONG);
            return Mode::Open { since: frame.end };
        }
        Mode::Pausing { since, alone, late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(16);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A game of 60 frames a second, and a job whose steps take three frames when they may run.
    struct Game {
        policy: Policy,
        now: Duration,
        pausing: bool,
        /// Frames of the step that runs.
        step: u32,
        last_step: Duration,
        late: u32,
        steps: u32,
    }

    impl Game {
        fn new() -> Self {
            Self {
                policy: Policy::new(TARGET),
                now: Duration::ZERO,
                pausing: false,
                step: 0,
                last_step: Duration::ZERO,
                late: 0,
                steps: 0,
            }
        }

        /// Frames of `alone`, and of `beside` with a step.
        fn run(&mut self, frames: u32, alone: Duration, beside: Duration) {
            (self.late, self.steps) = (0, 0);
            for _ in 0..frames {
                let due = self.now - self.last_step >= ms(235);
                if self.step == 0 && (!self.pausing || due) {
                    (self.step, self.last_step) = (3, self.now);
                    self.steps += 1;
                }
                let stepped = self.step > 0;
                self.step = self.step.saturating_sub(1);
                let work = if stepped { beside } else { alone };
                self.now += work.max(ms(17));
                self.late += u32::from(work > TARGET);
                self.pausing = self.policy.pauses_after(Frame {
                    end: self.now,
                    work,
                    stepped,
                });
            }
        }
    }

    #[test]
    fn a_game_with_time_to_spare_is_never_paused() {
        let mut game = Game::new();
        game.run(1_000, ms(8), ms(12));
        assert_eq!((game.late, game.pausing), (0, false));
        assert_eq!(game.steps, 334);
    }

    #[test]
    fn steps_that_cost_frames_are_held_back_to_the_few_that_nobody_holds() {
        let mut game = Game::new();
        game.run(1_000, ms(14), ms(18));
        let without_guard = 1_000;
        assert!(game.late < without_guard * 3 / 10, "{}", game.late);
        assert!(
            game.steps >= 4 * 17,
            "four a second, and had {}",
            game.steps
        );
    }

    #[test]
    fn a_game_that_is_slow_by_itself_is_left_alone() {
        let mut game = Game::new();
        game.run(500, ms(40), ms(45));
        assert!(!game.pausing);
        game.run(500, ms(40), ms(45));
        assert!(game.steps > 150, "of 167 that fit, {}", game.steps);
    }

    #[test]
    fn a_game_that_recovers_gets_its_steps_back() {
        let mut game = Game::new();
        game.run(600, ms(14), ms(18));
        game.run(200, ms(8), ms(12));
        game.run(300, ms(8), ms(12));
        assert_eq!((game.steps, game.late), (100, 0));
    }

    #[test]
    fn a_game_that_was_slow_is_guarded_again_once_it_is_well() {
        let mut game = Game::new();
        game.run(2_000, ms(40), ms(45));
        game.run(10, ms(8), ms(12));
        assert_eq!(game.policy.slow, SLOW);
        game.run(600, ms(14), ms(18));
        assert!(game.late < 600 * 4 / 10, "{} frames are late", game.late);
    }

    #[test]
    fn late_frames_without_a_step_pause_nothing() {
        let mut game = Game::new();
        let frame = |end, stepped| Frame {
            end,
            work: ms(30),
            stepped,
        };
        for i in 0..100 {
            assert!(!game.policy.pauses_after(frame(ms(i * 30), false)));
        }
        assert!(game.policy.pauses_after(frame(ms(3_030), true)));
    }

    #[test]
    fn a_step_that_never_ends_does_not_keep_a_pause_for_ever() {
        let mut game = Game::new();
        let frame = |end| Frame {
            end,
            work: ms(18),
            stepped: true,
        };
        let opened = (1..200).any(|i| !game.policy.pauses_after(frame(ms(i * 18))) && i > 1);
        assert!(opened, "{:?}", game.policy);
    }
}
