use bevy::prelude::*;
use bevy_candle::prelude::*;

fn forge_the_state(mut next: ResMut<NextState<StateOf<DdpmPipeline>>>) {
    next.set(ModelState::Loaded.of());
}

fn main() {}
