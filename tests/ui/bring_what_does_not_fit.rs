use std::sync::Arc;

use bevy::prelude::*;
use bevy_candle::{ModelFiles, ModelSource, ResourceManager, prelude::ModelPlugin};

#[derive(Debug)]
struct Sword;

fn add_a_kind(app: &mut App) {
    app.add_plugins(ModelPlugin::<Sword>::default());
}

fn load_from() -> ModelSource {
    ModelSource::files("sword", Arc::new(Sword) as Arc<dyn ModelFiles>)
}

fn make_room(memory: &mut ResourceManager) {
    memory.set_eviction_policy(Sword);
}

fn main() {}
