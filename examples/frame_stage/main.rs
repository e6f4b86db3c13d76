//! Two hundred sprites on their orbits, while a model of 1 GiB comes and goes: once through `bevy_candle`, once
//! the naive way, in a system. The sprites and the frame-time line show the difference.
//!
//! | key | |
//! |---|---|
//! | 1 | load or unload with `bevy_candle` |
//! | 2 | load or unload in a system, on the main thread |
//!
//! The model is made on the spot, as a file in the system's folder for temporary files, and goes with the scene.
//!
//! ```text
//! cargo run --release --features scenes --example frame_stage
//! ```

use bevy::prelude::*;
use bevy_candle::{ModelPanelPlugin, prelude::*};
use clap::Parser;

mod hud;
#[path = "../kit/mod.rs"]
mod kit;
mod model;
mod naive;
mod orbits;

use kit::{KitPlugin, Options, complain, complaint};
use model::{Block, Weights};

fn main() -> AppExit {
    let options = Options::parse();
    if let Some(complaint) = complaint() {
        complain(&complaint);
        return AppExit::error();
    }
    let weights = match Weights::begin() {
        Ok(weights) => weights,
        Err(error) => {
            complain(&format!("the model cannot be made: {error}"));
            return AppExit::error();
        }
    };
    let title = "Frame stage";
    App::new()
        .add_plugins((
            KitPlugin { title, options },
            ModelPlugin::<Block>::default(),
            ModelPanelPlugin,
        ))
        .add_plugins((orbits::plugin, naive::plugin, hud::plugin))
        .insert_resource(weights)
        .add_systems(Update, load_or_unload)
        .run()
}

/// The way of this crate: say what is wanted.
fn load_or_unload(
    keys: Res<ButtonInput<KeyCode>>,
    weights: Res<Weights>,
    mut block: ResMut<ModelManager<Block>>,
) {
    if !keys.just_pressed(KeyCode::Digit1) || !weights.are_written() {
        return;
    }
    if block.wanted.is_some() && block.current_state != ModelState::Failed {
        block.unload();
    } else {
        block.load(weights.folder());
    }
}
