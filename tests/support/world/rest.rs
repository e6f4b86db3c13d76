//! Until nothing happens any more, and to the end.

use std::{
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{Standing, prelude::*};

use super::{Game, JOB, MODEL, PATIENCE, gated::Gated};
use crate::support::reference::Request;

impl Game {
    #[track_caller]
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.frame();
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {self:?}");
            thread::park_timeout(Duration::from_micros(30));
        }
    }

    /// Runs until nothing happens any more without the game, and compares what there is with the references.
    #[track_caller]
    pub fn rest(&mut self) {
        self.run_until("comes to no rest", |game| {
            game.rests(0)
                && game.rests(1)
                && !game.is_leaving()
                && game.memory().in_use() == game.alive()
        });
        for kind in 0..2 {
            self.check_status(kind);
        }
        self.check_story();
    }

    /// Whether a parked model is on its way out: its manager is Idle all the while.
    fn is_leaving(&self) -> bool {
        let mut models = self.memory().models().iter();
        models.any(|model| model.standing == Standing::Leaving)
    }

    fn rests(&self, kind: usize) -> bool {
        let held = self.is_held(kind) || self.waits_for_other(kind);
        self.references[kind].rests(self.state(kind), self.jobs_of(kind), held)
    }

    /// Whether the load or the job of a manager stands at a gate.
    pub(super) fn is_held(&self, kind: usize) -> bool {
        let holds = |model: &Gated| match self.state(kind) {
            ModelState::Loading => model.building.waiting() == 1,
            ModelState::Loaded => model.steps.waiting() == 1,
            _ => false,
        };
        !self.runs_out && self.current(kind).is_some_and(holds)
    }

    pub(super) fn waits_for_other(&self, kind: usize) -> bool {
        let waits = self.status(kind).progress.phase == LoadPhase::Waiting;
        waits && self.memory().devices()[0].waiting > 0 && self.is_held(1 - kind)
    }

    /// Bytes of everything that is alive at rest.
    pub(super) fn alive(&self) -> u64 {
        let models = self.models.iter().flatten();
        let running = |model: &Gated| model.steps.waiting() as u64 * JOB;
        models
            .map(|model| model.alive() * MODEL + running(model))
            .sum()
    }

    /// Opens all gates, waits until everything has run out, and unloads.
    pub fn run_out(&mut self) {
        self.open_gates();
        self.rest();
        assert!(self.jobs.iter().all(|job| !job.living), "{self:?}");
        self.ask(0, Request::Unload);
        self.ask(1, Request::Unload);
        self.rest();
        self.assert_empty();
    }

    /// Ends the app with a message. What it held is back before the frame is over.
    pub fn exit(&mut self) {
        self.app.world_mut().write_message(AppExit::Success);
        self.app.update();
        for kind in 0..2 {
            let state = self.state(kind);
            assert!(matches!(state, ModelState::Idle | ModelState::Failed));
        }
        self.check_story();
        self.assert_empty();
    }

    /// Tears the world down in the middle of everything.
    pub fn drop_world(self) {
        let Self { app, models, .. } = self;
        drop(app);
        let deadline = Instant::now() + PATIENCE;
        while models.iter().flatten().any(|model| model.alive() > 0) {
            assert!(Instant::now() < deadline, "a model outlives its world");
            thread::park_timeout(Duration::from_micros(30));
        }
    }

    fn open_gates(&mut self) {
        self.runs_out = true;
        for model in self.models.iter().flatten() {
            model.building.open();
            model.steps.open();
        }
    }
}
