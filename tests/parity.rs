//! Pictures through the manager: against Python's diffusers, and against each other.

#[path = "parity/diffusers.rs"]
mod diffusers;
#[path = "parity/pictures.rs"]
mod pictures;

use std::path::{Path, PathBuf};

use bevy::prelude::*;
use bevy_candle::{prelude::*, test_kit::run_until};

/// What a job has made, and its previews.
#[derive(Resource, Default)]
struct Made {
    result: Option<Result<DdpmOutput, InferError>>,
    previews: Vec<(u32, DdpmOutput)>,
}

/// Makes pictures through a manager of its own.
fn run(
    source: impl Into<ModelSource>,
    request: DdpmRequest,
    change: impl FnOnce(&mut DdpmSettings),
) -> Made {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()))
        .init_resource::<Made>();
    let mut manager = app.world_mut().resource_mut::<ModelManager<DdpmPipeline>>();
    change(manager.settings_mut());
    manager.load(source);
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request).previews_every(2))
        .observe(
            |step: On<InferStep<DdpmPipeline>>, mut made: ResMut<Made>| {
                let preview = step.partial.clone();
                made.previews
                    .extend(preview.map(|preview| (step.step, preview)));
            },
        )
        .observe(
            |mut done: On<Inferred<DdpmPipeline>>, mut made: ResMut<Made>| {
                made.result = Some(done.take());
            },
        );
    run_until(&mut app, "the pictures", |world| {
        world.resource::<Made>().result.is_some()
    });
    app.world_mut()
        .remove_resource()
        .expect("it was just there")
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A picture as Bevy loads it.
fn picture(name: &str) -> Image {
    let bytes = std::fs::read(fixtures().join(format!("{name}.png"))).expect("the fixture");
    let image = image::load_from_memory(&bytes).expect("a picture");
    Image::from_dynamic(image, true, default())
}
