use bevy::prelude::*;
use bevy_candle::prelude::*;

fn forge_the_state(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
    let _state: ModelState = sprites.current_state;
    sprites.current_state = ModelState::Loaded;
    let _size: Option<UVec2> = sprites.sample_size;
    sprites.sample_size = None;
}

fn main() {}
