//! The naive way: a system that reads the file, and one that drops what it has read.

use std::{collections::HashMap, time::Instant};

use bevy::prelude::*;
use bevy_candle::candle::{self, Device, Tensor};

use crate::model::Weights;

pub fn plugin(app: &mut App) {
    app.init_resource::<Naive>()
        .add_systems(Update, load_or_unload);
}

/// What the main thread has loaded by itself.
#[derive(Resource, Default)]
pub struct Naive {
    weights: Option<HashMap<String, Tensor>>,
    /// How long the game stood still, in milliseconds: the last time, and at most.
    pub last: f32,
    pub longest: f32,
}

impl Naive {
    pub fn is_loaded(&self) -> bool {
        self.weights.is_some()
    }
}

pub fn load_or_unload(
    keys: Res<ButtonInput<KeyCode>>,
    weights: Res<Weights>,
    mut naive: ResMut<Naive>,
) {
    if !keys.just_pressed(KeyCode::Digit2) || !weights.are_written() {
        return;
    }
    let began = Instant::now();
    if naive.weights.take().is_none() {
        match candle::safetensors::load(weights.file(), &Device::Cpu) {
            Ok(loaded) => naive.weights = Some(loaded),
            Err(error) => error!("{error}"),
        }
    }
    naive.last = began.elapsed().as_secs_f32() * 1000.0;
    naive.longest = naive.longest.max(naive.last);
}
