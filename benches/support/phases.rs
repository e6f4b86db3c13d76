//! A game on a stage, and what is done beside its frames.

use std::time::Instant;

use bevy::{
    prelude::*,
    tasks::{AsyncComputeTaskPool, Task, futures_lite::future},
};
use bevy_candle::prelude::*;

use super::{
    game::{Game, PoolWaits, add_game, paced_frame},
    settings::settings,
    sides::load_with_candle,
    stack::Stack,
    weights::Folder,
};

/// A game, with managers for a model of 1 GiB and for the sprite model.
pub struct Stage<'a> {
    app: App,
    folder: &'a Folder,
    /// The seconds of each load.
    pub load_seconds: Vec<f64>,
    cancels: usize,
}

/// Steps that were taken, and whether there is to be another job after this one.
#[derive(Resource, Default)]
struct Steps {
    count: usize,
    /// The last that was seen of the running job: a frame sees the latest, and not those before it.
    last: u32,
    wanted: bool,
}

/// Steps of a job.
const STEPS: u32 = 50;

/// The game alone.
pub fn game_app(game: Game) -> App {
    let mut app = App::new();
    app.add_plugins(MinimalPlugins);
    add_game(&mut app, game);
    app.finish();
    app.cleanup();
    app
}

impl<'a> Stage<'a> {
    pub fn new(game: Game, folder: &'a Folder) -> Self {
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins,
            settings(),
            ModelPlugin::<Stack>::default(),
            ModelPlugin::<DdpmPipeline>::default(),
        ))
        .init_resource::<Steps>()
        .add_observer(count_step)
        .add_observer(go_on);
        add_game(&mut app, game);
        app.finish();
        app.cleanup();
        Self {
            app,
            folder,
            load_seconds: Vec::new(),
            cancels: 0,
        }
    }

    fn manager<P: Pipeline>(&mut self) -> Mut<'_, ModelManager<P>> {
        self.app.world_mut().resource_mut()
    }

    fn state<P: Pipeline>(&mut self) -> ModelState {
        let manager = self.manager::<P>();
        assert!(manager.last_error.is_none(), "{:?}", manager.last_error);
        manager.current_state
    }

    /// Frames until a state shows.
    fn frames_until<P: Pipeline>(&mut self, state: ModelState, frames: &mut Vec<f64>) {
        while self.state::<P>() != state {
            frames.push(paced_frame(&mut self.app));
        }
    }

    fn load(&mut self) {
        let folder = self.folder.path().to_path_buf();
        self.manager::<Stack>().load(folder);
    }

    /// How long light tasks have waited for the pool since the last look, in milliseconds.
    pub fn pool_waits(&mut self) -> Vec<f64> {
        self.app.world().resource::<PoolWaits>().take()
    }

    /// Frames with nothing beside them, until there are so many.
    pub fn alone(&mut self, count: usize, frames: &mut Vec<f64>) {
        while frames.len() < count {
            frames.push(paced_frame(&mut self.app));
        }
    }

    /// Loads and unloads 1 GiB, until there are so many frames of each.
    pub fn come_and_go(&mut self, count: usize, loads: &mut Vec<f64>, unloads: &mut Vec<f64>) {
        while loads.len().min(unloads.len()) < count {
            let begun = Instant::now();
            self.load();
            self.frames_until::<Stack>(ModelState::Loaded, loads);
            self.load_seconds.push(begun.elapsed().as_secs_f64());
            self.manager::<Stack>().unload();
            self.frames_until::<Stack>(ModelState::Idle, unloads);
        }
    }

    /// One load, before those that count.
    pub fn come_and_go_first(&mut self, frames: &mut Vec<f64>) {
        self.load();
        self.frames_until::<Stack>(ModelState::Loaded, frames);
        self.manager::<Stack>().unload();
        self.frames_until::<Stack>(ModelState::Idle, &mut Vec::new());
    }

    /// Cancels loads after one frame to twenty.
    pub fn cancel(&mut self, count: usize, frames: &mut Vec<f64>) {
        while frames.len() < count {
            self.load();
            for _ in 0..=self.cancels % 20 {
                frames.push(paced_frame(&mut self.app));
            }
            self.cancels += 1;
            self.manager::<Stack>().unload();
            self.frames_until::<Stack>(ModelState::Idle, frames);
        }
    }

    /// The sprite model generates without a pause. Returns the steps.
    pub fn infer(&mut self, count: usize, frames: &mut Vec<f64>) -> usize {
        self.manager::<DdpmPipeline>().load("models/sprites");
        self.frames_until::<DdpmPipeline>(ModelState::Loaded, &mut Vec::new());
        *self.app.world_mut().resource_mut::<Steps>() = Steps {
            wanted: true,
            ..default()
        };
        self.app.world_mut().spawn(job());
        self.alone(count, frames);
        let steps = &mut *self.app.world_mut().resource_mut::<Steps>();
        steps.wanted = false;
        let taken = steps.count;
        self.manager::<DdpmPipeline>().unload();
        self.frames_until::<DdpmPipeline>(ModelState::Idle, &mut Vec::new());
        taken
    }

    /// The median of some loads.
    pub fn seconds_per_load(&mut self, count: usize) -> f64 {
        for _ in 0..count {
            self.come_and_go(1, &mut Vec::new(), &mut Vec::new());
        }
        super::figures::median(&std::mem::take(&mut self.load_seconds))
    }

    /// Steps of the sprite model, in so many frames.
    pub fn steps_per_second(&mut self, frames: usize) -> f64 {
        let begun = Instant::now();
        let steps = self.infer(frames, &mut Vec::new());
        steps as f64 / begun.elapsed().as_secs_f64()
    }

    /// A load in a system: one frame each.
    pub fn load_in_system(&mut self, count: usize) -> Vec<f64> {
        let folder = self.folder.path().to_path_buf();
        let load = move || _ = load_with_candle(&folder);
        let id = self.app.register_system(load);
        let mut frames = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            let ran = self.app.world_mut().run_system(id);
            ran.expect("the system is registered");
            let alone = begun.elapsed();
            frames.push(paced_frame(&mut self.app) + alone.as_secs_f64() * 1e3);
        }
        frames
    }

    /// A blocking load in one task of the pool, until there are so many frames.
    pub fn load_in_pool(&mut self, count: usize) -> Vec<f64> {
        let mut frames = Vec::new();
        while frames.len() < count {
            let folder = self.folder.path().to_path_buf();
            let load = async move { _ = load_with_candle(&folder) };
            let mut task: Task<()> = AsyncComputeTaskPool::get().spawn(load);
            while future::block_on(future::poll_once(&mut task)).is_none() {
                frames.push(paced_frame(&mut self.app));
            }
        }
        frames
    }
}

fn job() -> Infer<DdpmPipeline> {
    Infer::new(DdpmRequest {
        class: Some(0),
        steps: STEPS,
        ..default()
    })
}

fn count_step(seen: On<InferStep<DdpmPipeline>>, mut steps: ResMut<Steps>) {
    steps.count += (seen.step - steps.last) as usize;
    steps.last = seen.step;
}

fn go_on(done: On<Inferred<DdpmPipeline>>, mut steps: ResMut<Steps>, mut commands: Commands) {
    steps.count += (STEPS - steps.last) as usize;
    steps.last = 0;
    if steps.wanted {
        commands.entity(done.entity).insert(job());
    }
}
