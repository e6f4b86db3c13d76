//! What the crate's systems take of the main thread.

use std::time::{Duration, Instant};

use bevy::{ecs::schedule::SingleThreadedExecutor, prelude::*};
use bevy_candle::CandleSystems;

/// The time of the crate's systems in `PreUpdate`, all frames together.
#[derive(Resource, Default)]
pub struct OnMainThread {
    begun: Option<Instant>,
    /// The sum.
    pub total: Duration,
}

/// Adds [`OnMainThread`]. The systems run one after the other, so that handing them from thread to thread is not counted.
pub fn watch_main_thread(app: &mut App) {
    app.edit_schedule(PreUpdate, |schedule| {
        schedule.set_executor(SingleThreadedExecutor::new());
    });
    app.init_resource::<OnMainThread>().add_systems(
        PreUpdate,
        (
            begin.before(CandleSystems::Deliver),
            end.after(CandleSystems::Transition),
        ),
    );
}

/// Exclusive, so that it runs on the main thread itself.
fn begin(world: &mut World) {
    world.resource_mut::<OnMainThread>().begun = Some(Instant::now());
}

fn end(world: &mut World) {
    let mut time = world.resource_mut::<OnMainThread>();
    let begun = time.begun.take();
    time.total += begun.map(|begun| begun.elapsed()).unwrap_or_default();
}
