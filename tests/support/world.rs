//! Two managers under one budget, whose loads and jobs stand at gates, and what has to hold of them.

#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, Recorder, RecorderPlugin},
};

use super::reference::{Reference, Request, Which};
use checks::{MayExceedBudget, in_every_frame};
use gated::Gated;
use jobs::{Asked, Ends};

/// Runs `$run` with the manager's kind as a constant.
macro_rules! with_kind {
    ($kind:expr, $constant:ident => $run:expr) => {
        if $kind == 0 {
            const $constant: usize = 0;
            $run
        } else {
            const $constant: usize = 1;
            $run
        }
    };
}

// After the macro: `jobs` uses it.
mod checks;
mod gated;
mod jobs;
mod rest;

/// What a model has, in bytes.
pub const MODEL: u64 = 16 << 10;

/// What a job works with, in bytes.
pub const JOB: u64 = 8 << 10;

/// How long two managers may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two managers, and the reference of each.
pub struct Game {
    pub app: App,
    models: [Vec<Gated>; 2],
    references: [Reference; 2],
    /// Transitions that the references have followed.
    followed: [usize; 2],
    jobs: Vec<Asked>,
    ends: usize,
    /// All gates are open: nothing holds anybody.
    runs_out: bool,
}

impl Game {
    pub fn new(budget: u64) -> Self {
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins,
            CandlePlugin {
                memory_budget: Some(budget),
                shutdown_timeout: PATIENCE,
                ..default()
            },
        ))
        .init_resource::<Ends>()
        .add_systems(Last, in_every_frame);
        add_kind::<0>(&mut app);
        add_kind::<1>(&mut app);
        let models = || Which::ALL.map(Gated::new).into();
        Self {
            app,
            models: [models(), models()],
            references: default(),
            followed: [0; 2],
            jobs: Vec::new(),
            ends: 0,
            runs_out: false,
        }
    }

    fn manager<const KIND: usize>(&mut self) -> Mut<'_, ModelManager<Fake<KIND>>> {
        self.app.world_mut().resource_mut()
    }

    fn status(&self, kind: usize) -> &ModelStatus {
        let world = self.app.world();
        with_kind!(kind, KIND => world.resource::<ModelManager<Fake<KIND>>>())
    }

    fn memory(&self) -> &ResourceManager {
        self.app.world().resource()
    }

    pub fn state(&self, kind: usize) -> ModelState {
        self.status(kind).current_state
    }

    pub fn ask(&mut self, kind: usize, request: Request) {
        let shown = self.state(kind);
        let before = self.references[kind].wanted;
        self.references[kind].ask(request, shown);
        // A request for the model that is wanted already takes nothing from anybody.
        let is_same = matches!(request, Request::Load(which) if before == Some(which));
        if !is_same {
            self.let_jobs_be_refused(kind);
        }
        let source = |which| {
            let mut models = self.models[kind].iter();
            let found = models.find(|model| model.which == which);
            found.expect("each has one").model.source()
        };
        let source = match request {
            Request::Load(which) => Some(source(which)),
            _ => None,
        };
        with_kind!(kind, KIND => {
            let mut manager = self.manager::<KIND>();
            match (request, source) {
                (Request::Load(_), Some(source)) => manager.load(source),
                (Request::Reload, _) => manager.reload(),
                (Request::Unload, _) => manager.unload(),
                _ => manager.cancel(),
            }
        });
        let wanted = self.status(kind).wanted.as_ref().map(ToString::to_string);
        let expected = self.references[kind].wanted.map(Which::id);
        assert_eq!(wanted, expected, "`wanted` of {kind} after {request:?}");
    }

    pub fn set(&mut self, kind: usize, value: u32) {
        with_kind!(kind, KIND => self.manager::<KIND>().settings_mut().value = value);
    }

    pub fn keep_parked(&mut self, kind: usize, count: usize) {
        with_kind!(kind, KIND => self.manager::<KIND>().residency_mut().keep_parked = count);
    }

    fn keep_alive(&mut self, kind: usize, time: Option<Duration>) {
        with_kind!(kind, KIND => self.manager::<KIND>().residency_mut().keep_alive = time);
    }

    /// The model that a manager is busy with.
    fn current(&self, kind: usize) -> Option<&Gated> {
        let id = self.status(kind).model_id.as_ref()?;
        let mut models = self.models[kind].iter();
        models.find(|model| *id == *model.which.id())
    }

    /// Lets a load that stands at its gate end: well, with an error or with a panic.
    pub fn finish_load(&mut self, kind: usize) {
        let building = self.current(kind).map(|model| model.building.clone());
        if let Some(gate) = building.filter(|gate| gate.waiting() > 0) {
            gate.let_pass(1);
            self.run_until("the load passes", |_| gate.waiting() == 0);
        }
    }

    /// Lets a job take a step.
    pub fn step(&mut self, kind: usize) {
        let steps = self.current(kind).map(|model| model.steps.clone());
        if let Some(gate) = steps.filter(|gate| gate.waiting() > 0) {
            gate.let_pass(1);
        }
    }

    /// Takes a byte of the budget in use away, and gives it back.
    pub fn evict(&mut self, budget: u64) {
        let in_use = self.memory().in_use();
        if in_use == 0 {
            return;
        }
        self.app.insert_resource(MayExceedBudget);
        self.let_jobs_lack_room();
        self.set_budget(in_use - 1);
        self.frame();
        self.set_budget(budget);
        self.app.world_mut().remove_resource::<MayExceedBudget>();
    }

    fn set_budget(&mut self, bytes: u64) {
        let mut memory = self.app.world_mut().resource_mut::<ResourceManager>();
        memory.set_budget(DeviceChoice::Cpu, bytes);
    }

    /// Has the time-out of an idle model end.
    pub fn expire(&mut self, kind: usize) {
        let goes = self.state(kind).is_loaded() && self.jobs_of(kind) == 0;
        self.keep_alive(kind, Some(Duration::ZERO));
        if goes {
            self.run_until("an idle model expires", |game| {
                game.state(kind) == ModelState::Idle
            });
        }
        self.keep_alive(kind, None);
        self.rest();
    }

    pub fn frame(&mut self) {
        self.app.update();
        self.follow::<0>();
        self.follow::<1>();
        self.note_ends();
        assert_eq!(self.app.should_exit(), None, "a system has failed");
    }

    fn follow<const KIND: usize>(&mut self) {
        let recorder = self.app.world().resource::<Recorder<Fake<KIND>>>();
        for seen in &recorder.transitions[self.followed[KIND]..] {
            self.references[KIND].follow(seen);
        }
        self.followed[KIND] = recorder.transitions.len();
    }
}

impl std::fmt::Debug for Game {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for kind in 0..2 {
            let (status, jobs) = (self.status(kind), self.jobs_of(kind));
            let held = (self.is_held(kind), self.waits_for_other(kind));
            let reference = &self.references[kind];
            writeln!(f, "{kind}: {jobs} jobs, held: {held:?}, {reference:?}")?;
            writeln!(f, "{status:?}")?;
        }
        let memory = self.memory();
        let (in_use, alive) = (memory.in_use(), self.alive());
        write!(
            f,
            "{in_use} bytes in use, {alive} alive: {:?}",
            memory.models()
        )
    }
}

fn add_kind<const KIND: usize>(app: &mut App) {
    app.add_plugins((
        ModelPlugin::<Fake<KIND>>::default(),
        RecorderPlugin::<Fake<KIND>>::default(),
    ))
    .add_observer(
        |mut done: On<Inferred<Fake<KIND>>>, mut ends: ResMut<Ends>| {
            let entity = done.entity;
            ends.0.push((entity, done.take()));
        },
    );
}
