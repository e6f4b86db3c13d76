//! What a manager comes to, in a few lines: without threads, bytes or frames.

use bevy_candle::prelude::*;
use bevy_candle::{ModelTransition, test_kit::Fake};

/// The models that a game can ask for: each manager has four of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Good,
    Other,
    Fails,
    Panics,
}

impl Which {
    pub const ALL: [Self; 4] = [Self::Good, Self::Other, Self::Fails, Self::Panics];

    pub fn id(self) -> String {
        format!("{self:?}")
    }

    pub fn loads(self) -> bool {
        matches!(self, Self::Good | Self::Other)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Request {
    Load(Which),
    Reload,
    Unload,
    Cancel,
}

/// One manager, as the request table of `ModelManager` has it.
#[derive(Default, Debug)]
pub struct Reference {
    /// What the game asked for last.
    pub wanted: Option<Which>,
    /// What was started last.
    pub last: Option<Which>,
    /// A load was asked for, and has not begun.
    asked: bool,
    /// The same model is wanted anew.
    anew: bool,
    /// An unload was asked for after a failure.
    reset: bool,
    /// The model went by itself, and only a job or a request brings it back.
    asleep: bool,
}

impl Reference {
    pub fn ask(&mut self, request: Request, shown: ModelState) {
        use ModelState::{Failed, Loaded};
        match request {
            Request::Load(which) => {
                let same = self.wanted == Some(which);
                self.want(which, same && self.anew);
            }
            Request::Reload => {
                let Some(which) = self.wanted.or(self.last) else {
                    return;
                };
                let anew = self.last == Some(which) && matches!(shown, Loaded | Failed);
                self.want(which, anew);
            }
            Request::Cancel if matches!(shown, Loaded | Failed) && !self.has_wish() => {}
            Request::Cancel if shown == Loaded => {
                *self = Self {
                    wanted: self.last,
                    last: self.last,
                    ..Self::default()
                }
            }
            Request::Cancel if shown == Failed => {
                *self = Self {
                    last: self.last,
                    ..Self::default()
                }
            }
            Request::Unload | Request::Cancel => {
                *self = Self {
                    last: self.last,
                    reset: true,
                    ..Self::default()
                }
            }
        }
    }

    fn want(&mut self, which: Which, anew: bool) {
        *self = Self {
            wanted: Some(which),
            last: self.last,
            asked: true,
            anew,
            ..Self::default()
        }
    }

    /// Whether there is a load to take back.
    fn has_wish(&self) -> bool {
        self.asked
    }

    /// Follows what has happened. The machine starts nothing but what is wanted.
    pub fn follow<const KIND: usize>(&mut self, seen: &ModelTransition<Fake<KIND>>) {
        match (seen.to, seen.reason) {
            (ModelState::Loading, reason) => {
                let id = seen.model_id.as_ref().map(ToString::to_string);
                assert_eq!(id, self.wanted.map(Which::id), "{seen:?} is not wanted");
                let by_job = reason == TransitionReason::JobRequested;
                assert_eq!(by_job, self.asleep, "{seen:?}");
                (self.last, self.anew, self.asleep) = (self.wanted, false, false);
            }
            (ModelState::Unloading, TransitionReason::Evicted | TransitionReason::Expired) => {
                self.asleep = true;
                self.asked = true;
            }
            (ModelState::Failed, _) if self.wanted == self.last => self.asked = false,
            _ => {}
        }
    }

    /// Whether a manager may stay in this state, with jobs or without. A load is only at rest where something
    /// holds it, and a job where its model does.
    pub fn rests(&self, shown: ModelState, jobs: usize, held: bool) -> bool {
        let as_wanted = self.wanted == self.last && !self.anew;
        match shown {
            ModelState::Idle => jobs == 0 && (self.wanted.is_none() || self.asleep),
            ModelState::Loading => as_wanted && held,
            ModelState::Loaded => as_wanted && (jobs == 0 || held),
            ModelState::Unloading => false,
            ModelState::Failed => {
                let stays = self.wanted.is_none() && !self.reset;
                jobs == 0 && (stays || as_wanted)
            }
        }
    }
}
