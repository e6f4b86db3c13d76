//! Loads a model, makes one picture, and ends: `cargo run --release --example minimal`.

use bevy::{log::LogPlugin, prelude::*};
use bevy_candle::prelude::*;

fn main() -> AppExit {
    App::new()
        .add_plugins((MinimalPlugins, LogPlugin::default()))
        .add_plugins(ModelPlugin::<DdpmPipeline>::default())
        .add_systems(Startup, load)
        .add_systems(OnEnter(ModelState::Loaded.of::<DdpmPipeline>()), forge)
        .add_systems(OnEnter(ModelState::Failed.of::<DdpmPipeline>()), end)
        .add_observer(show)
        .run()
}

fn load(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
    sprites.load("models/sprites");
}

fn forge(mut commands: Commands) {
    // Class 3 is a gem.
    let request = DdpmRequest {
        class: Some(3),
        ..default()
    };
    commands.spawn(Infer::<DdpmPipeline>::new(request));
}

fn show(mut done: On<Inferred<DdpmPipeline>>, mut exit: MessageWriter<AppExit>) {
    match done.take() {
        Ok(output) => info!("a gem: {:?}", output.images()[0].size()),
        Err(error) => error!("no picture: {}", ErrorChain(&error)),
    }
    exit.write(AppExit::Success);
}

fn end(mut exit: MessageWriter<AppExit>) {
    exit.write(AppExit::error());
}
