//! Two managers under one budget, whose loads and jobs stand at gates, and what has to hold of them.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{
    Standing,
    prelude::*,
    test_kit::{Fake, FakeModel, FakeOutput, FakeRequest, Gate, Place, Recorder, RecorderPlugin},
};

use super::reference::{Reference, Request, Which};
use checks::{MayExceedBudget, in_every_frame};

mod checks;

/// What a model has, in bytes.
pub const MODEL: u64 = 16 << 10;

/// What a job works with, in bytes.
pub const JOB: u64 = 8 << 10;

/// How long two managers may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(20);

/// A job that was asked for.
struct Asked {
    entity: Entity,
    kind: usize,
    settings: u32,
    steps: u32,
    panics: bool,
    living: bool,
    /// No model was wanted for it, or what was wanted has changed since: it may end without one.
    may_be_refused: bool,
}

/// What observers saw of all jobs.
#[derive(Resource, Default)]
struct Ends(Vec<(Entity, Result<FakeOutput, InferError>)>);

/// A model of one manager, with gates in its build and in its steps.
struct Gated {
    which: Which,
    model: FakeModel,
    building: Gate,
    steps: Gate,
}

impl Gated {
    fn new(which: Which) -> Self {
        let (building, steps) = (Gate::closed(), Gate::closed());
        let model = FakeModel::new(which.id())
            .tensors(1, MODEL as usize / size_of::<f32>())
            .gate(Place::Build, &building)
            .gate_steps(&steps);
        let model = match which {
            Which::Fails => model.fail_in(Place::Build),
            Which::Panics => model.panic_in(Place::Build),
            Which::Good | Which::Other => model,
        };
        Self {
            which,
            model,
            building,
            steps,
        }
    }

    /// How many pipelines of it there are, half built ones included.
    fn alive(&self) -> u64 {
        let log = self.model.log();
        let count = |place| log.iter().filter(|event| event.place == place).count();
        (count(Place::Build) - count(Place::Drop)) as u64
    }
}

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
        let refused = self
            .jobs
            .iter_mut()
            .filter(|job| job.kind == kind && !is_same);
        refused.for_each(|job| job.may_be_refused = true);
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

    pub fn infer(&mut self, kind: usize, steps: u32, panics: bool) {
        let entity = self.app.world_mut().spawn_empty().id();
        self.insert_job(entity, kind, steps, panics);
    }

    fn insert_job(&mut self, entity: Entity, kind: usize, steps: u32, panic: bool) {
        let request = FakeRequest {
            steps,
            memory: JOB,
            panic,
            ..default()
        };
        let settings = with_kind!(kind, KIND => {
            let settings = self.manager::<KIND>().settings().value;
            let job = Infer::<Fake<KIND>>::new(request).previews_every(2);
            self.app.world_mut().entity_mut(entity).insert(job);
            settings
        });
        let wanted = self.references[kind].wanted;
        self.jobs.push(Asked {
            may_be_refused: !wanted.is_some_and(Which::loads),
            entity,
            kind,
            settings,
            steps,
            panics: panic,
            living: true,
        });
    }

    fn living(&self, number: usize) -> Option<usize> {
        let mut living = (0..self.jobs.len()).filter(|job| self.jobs[*job].living);
        let count = living.clone().count();
        living.nth(number.checked_rem(count)?)
    }

    pub fn despawn(&mut self, number: usize) {
        if let Some(job) = self.living(number) {
            self.jobs[job].living = false;
            self.app.world_mut().despawn(self.jobs[job].entity);
        }
    }

    /// Puts another job on the entity of a living one, which ends in silence.
    pub fn replace(&mut self, number: usize) {
        if let Some(job) = self.living(number) {
            self.jobs[job].living = false;
            let (entity, kind) = (self.jobs[job].entity, self.jobs[job].kind);
            self.insert_job(entity, kind, 1, false);
        }
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

    fn jobs_of(&self, kind: usize) -> usize {
        let jobs = self.jobs.iter();
        jobs.filter(|job| job.living && job.kind == kind).count()
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

    /// Each job whose entity lives ends once, and as it should.
    fn note_ends(&mut self) {
        let ends = &self.app.world().resource::<Ends>().0;
        for (entity, result) in &ends[self.ends..] {
            let mut jobs = self.jobs.iter_mut();
            let job = jobs.find(|job| job.living && job.entity == *entity);
            let job = job.expect("only a living job ends, and once");
            job.living = false;
            job.check(result);
        }
        self.ends = ends.len();
    }

    #[track_caller]
    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
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
    fn is_held(&self, kind: usize) -> bool {
        let holds = |model: &Gated| match self.state(kind) {
            ModelState::Loading => model.building.waiting() == 1,
            ModelState::Loaded => model.steps.waiting() == 1,
            _ => false,
        };
        !self.runs_out && self.current(kind).is_some_and(holds)
    }

    fn waits_for_other(&self, kind: usize) -> bool {
        let waits = self.status(kind).progress.phase == LoadPhase::Waiting;
        waits && self.memory().devices()[0].waiting > 0 && self.is_held(1 - kind)
    }

    /// Bytes of everything that is alive at rest.
    fn alive(&self) -> u64 {
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
