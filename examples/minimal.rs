//! Loads a model, makes one picture, and ends. The first thing to read.
//!
//! ```text
//! cargo run --release --example minimal
//! ```

use bevy::{app::ScheduleRunnerPlugin, log::LogPlugin, prelude::*};
use bevy_candle::prelude::*;

fn main() {
    App::new()
        .add_plugins((
            MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(default())),
            LogPlugin::default(),
        ))
        .add_plugins(ModelPlugin::<DdpmPipeline>::default())
        .add_systems(
            Startup,
            |mut sprites: ResMut<ModelManager<DdpmPipeline>>| sprites.load("models/sprites"),
        )
        .add_systems(OnEnter(ModelState::Loaded.of::<DdpmPipeline>()), forge)
        .add_systems(OnEnter(ModelState::Failed.of::<DdpmPipeline>()), || {
            AppExit::error()
        })
        .run();
}

fn forge(mut commands: Commands, sprites: Res<ModelManager<DdpmPipeline>>) {
    info!(
        "loaded {:?}, which makes pictures of {:?} pixels",
        sprites.model_id, sprites.sample_size
    );
    let request = DdpmRequest {
        class: Some(3),
        seed: 7,
        ..default()
    };
    commands
        .spawn(Infer::<DdpmPipeline>::new(request))
        .observe(|step: On<InferStep<DdpmPipeline>>| info!("step {} of {}", step.step, step.steps))
        .observe(show);
}

fn show(mut done: On<Inferred<DdpmPipeline>>, mut exit: MessageWriter<AppExit>) {
    match done.take() {
        Ok(output) => info!("made {} picture(s)", output.images().len()),
        Err(error) => error!("no picture: {error}"),
    }
    exit.write(AppExit::Success);
}
