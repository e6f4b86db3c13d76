//! Inference pauses between steps where it costs frames, and goes on where pausing would not help.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{
    LoadSteps, MemoryFiles, ModelFiles, Plan, Steps, candle_nn::VarBuilder, prelude::*,
    test_kit::run_until_state,
};

/// A step, and what frames may take.
const STEP: Duration = Duration::from_millis(60);
const TARGET: Duration = Duration::from_millis(50);

/// How long each game is watched.
const WATCH: Duration = Duration::from_secs(4);

/// Steps that run, and steps that are done.
#[derive(Resource, Clone, Default)]
struct Count(Arc<(AtomicU32, AtomicU32)>);

/// Does nothing, slowly.
struct Work;

impl Pipeline for Work {
    type Config = ();
    type Settings = ();
    type Request = Count;
    type Partial = ();
    type Output = ();

    fn plan(_: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Ok(Plan::new(()))
    }

    async fn build((): (), _: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self)
    }

    async fn infer(&self, count: Count, steps: Steps<Self>) -> Result<(), InferError> {
        let Count(count) = &count;
        for step in 1..=u32::MAX {
            count.0.fetch_add(1, Ordering::Relaxed);
            thread::sleep(STEP);
            count.0.fetch_sub(1, Ordering::Relaxed);
            count.1.fetch_add(1, Ordering::Relaxed);
            steps.next(step, u32::MAX, || ()).await;
        }
        Ok(())
    }
}

/// What a frame of the game takes alone, and beside a step.
#[derive(Resource, Clone, Copy)]
struct Game {
    alone: Duration,
    beside: Duration,
}

fn play(game: Res<Game>, count: Res<Count>) {
    let begun = Instant::now();
    let due = |beside: bool| if beside { game.beside } else { game.alone };
    let mut beside = false;
    while begun.elapsed() < due(beside) {
        beside |= count.0.0.load(Ordering::Relaxed) > 0;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the steps that a job takes while the game is watched.
fn steps_beside(game: Game, frame_target: Option<Duration>) -> u32 {
    // The games of a process would share the device's thread.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = Count::default();
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            frame_target,
            ..default()
        },
        ModelPlugin::<Work>::default(),
    ))
    .insert_resource(count.clone())
    .insert_resource(game)
    .add_systems(Update, play);
    let files = MemoryFiles::new::<String>([]);
    app.world_mut()
        .resource_mut::<ModelManager<Work>>()
        .load(ModelSource::files("work", Arc::new(files)));
    run_until_state::<Work>(&mut app, ModelState::Loaded);
    app.world_mut().spawn(Infer::<Work>::new(count.clone()));
    let begun = Instant::now();
    while begun.elapsed() < WATCH {
        app.update();
    }
    count.0.1.load(Ordering::Relaxed)
}

/// Without a pause there are 66 in this time, with all pauses 16.
#[test]
fn steps_wait_where_they_cost_frames_but_for_four_a_second() {
    let game = Game {
        alone: Duration::from_millis(5),
        beside: Duration::from_millis(80),
    };
    let unguarded = steps_beside(game, None);
    let guarded = steps_beside(game, Some(TARGET));
    assert!(guarded <= unguarded / 2, "{guarded} of {unguarded}");
    assert!(guarded >= 12, "{guarded} in four seconds");
}

#[test]
fn a_game_that_is_slow_by_itself_keeps_its_steps() {
    let game = Game {
        alone: Duration::from_millis(70),
        beside: Duration::from_millis(80),
    };
    let guarded = steps_beside(game, Some(TARGET));
    assert!(guarded >= 30, "{guarded} of about 60");
}

#[test]
fn a_game_with_time_to_spare_is_not_paused() {
    let game = Game {
        alone: Duration::from_millis(2),
        beside: Duration::from_millis(5),
    };
    let guarded = steps_beside(game, Some(TARGET));
    assert!(guarded >= 30, "{guarded} of about 60");
}
