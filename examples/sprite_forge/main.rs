//! A forge: pixel-art items form from noise on an anvil, and drop into an inventory.
//!
//! Shows what a game does with the shipped diffusion model: jobs with previews, a queue whose rows *are* the jobs,
//! and a model that comes and goes while the frame time stays flat. Everything is in Bevy's own UI.
//!
//! | key | |
//! |---|---|
//! | 1 to 8 | choose an item |
//! | T | the next sampler |
//! | Space | forge; a click on a row of the queue takes it away, running or not |
//! | L, C, U, R | load, cancel, unload, reload the model |
//!
//! ```text
//! cargo run --release --features scenes --example sprite_forge
//! cargo run --release --features scenes --example sprite_forge -- --model models/missing
//! ```

use bevy::prelude::*;
use bevy_candle::{ModelDiagnosticsPlugin, ModelPanelPlugin, prelude::*};
use clap::Parser;

mod art;
mod controls;
mod gauges;
mod inventory;
mod items;
#[path = "../kit/mod.rs"]
mod kit;
mod lamps;
mod layout;
mod queue;
mod stage;

use kit::{KitPlugin, Options, complain, complaint};

/// The kind of model that the forge works with.
type Sprites = DdpmPipeline;

/// The command line.
#[derive(Parser)]
struct Arguments {
    /// The model's folder, under `assets` or absolute; it has to have the same classes
    #[arg(long, default_value = "models/sprites")]
    model: String,
    #[command(flatten)]
    options: Options,
}

fn main() -> AppExit {
    let Arguments { model, options } = Arguments::parse();
    if let Some(complaint) = complaint() {
        complain(&complaint);
        return AppExit::error();
    }
    let title = "Sprite forge";
    App::new()
        .add_plugins((
            KitPlugin { title, options },
            ModelPlugin::<Sprites>::default(),
            ModelDiagnosticsPlugin::default(),
            ModelPanelPlugin,
        ))
        .add_plugins((
            layout::plugin,
            controls::plugin,
            queue::plugin,
            stage::plugin,
            inventory::plugin,
            lamps::plugin,
            gauges::plugin,
        ))
        .add_systems(
            Startup,
            move |mut sprites: ResMut<ModelManager<Sprites>>| {
                sprites.load(model.as_str());
            },
        )
        .run()
}
