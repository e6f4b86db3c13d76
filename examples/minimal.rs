//! Loads a model, makes one picture, and ends: `cargo run --release --example minimal`.

use bevy::{log::LogPlugin, prelude::*};
use bevy_candle::prelude::*;

fn main() -> AppExit {
    App::new()
        .add_plugins((MinimalPlugins, LogPlugin::default()))
        .add_plugins(ModelPlugin::<DdpmPipeline>::default())
        .add_systems(Startup, begin)
        .add_observer(end)
        .run()
}

fn begin(mut commands: Commands, mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
    sprites.load("models/sprites");
    // Class 3 is a gem. The job waits for the model, and fails with it.
    let request = DdpmRequest {
        class: Some(3),
        ..default()
    };
    commands.spawn(Infer::<DdpmPipeline>::new(request));
}

fn end(mut done: On<Inferred<DdpmPipeline>>, mut exit: MessageWriter<AppExit>) {
    exit.write(match done.take() {
        Ok(output) => {
            info!("a gem: {:?}", output.images()[0].size());
            AppExit::Success
        }
        Err(error) => {
            error!("no picture: {}", ErrorChain(&error));
            AppExit::error()
        }
    });
}
