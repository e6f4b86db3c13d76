use bevy::prelude::*;
use bevy_candle::prelude::*;

fn change(sprites: Res<ModelManager<DdpmPipeline>>) {
    sprites.settings_mut().sampler = Sampler::Ddpm;
}

fn main() {}
