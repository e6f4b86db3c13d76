//! The frame guard: inference pauses between steps while it costs frames.
//!
//! Measures the work of every frame, from before [`First`] to after [`Last`], against
//! [`CandlePlugin::frame_target`]. Waiting for the screen is not in it.
//!
//! ```
//! use std::time::Duration;
//!
//! use bevy::prelude::*;
//! use bevy_candle::prelude::*;
//!
//! let mut app = App::new();
//! app.add_plugins((
//!     MinimalPlugins,
//!     CandlePlugin { frame_target: Some(Duration::from_micros(16_600)), ..default() },
//!     ModelPlugin::<DdpmPipeline>::default(),
//! ));
//! # app.finish();
//! # app.update();
//! ```

use std::time::{Duration, Instant};

use bevy::{
    app::MainScheduleOrder,
    ecs::schedule::{ScheduleLabel, SingleThreadedExecutor},
    prelude::*,
};

#[cfg(doc)]
use crate::CandlePlugin;

mod gate;
mod policy;

pub(crate) use gate::{Running, StepGate};
use policy::{Frame, Policy};

/// Runs before [`First`] and after [`Last`].
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
struct FrameBegins;

#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
struct FrameEnds;

/// Watches the frames of an app with a target.
#[derive(Resource)]
struct FrameGuard {
    policy: Policy,
    /// The policy's clock starts here.
    since: Instant,
    begun: Instant,
    /// What the gate had counted when the frame began.
    steps: u64,
}

/// Guards the app's frames from now on, or no longer.
pub(crate) fn guard_frames(app: &mut App, target: Option<Duration>) {
    let Some(target) = target else {
        if app.world_mut().remove_resource::<FrameGuard>().is_some() {
            app.world_mut().get_resource_or_init::<StepGate>().open();
        }
        return;
    };
    let now = Instant::now();
    app.insert_resource(FrameGuard {
        policy: Policy::new(target),
        since: now,
        begun: now,
        steps: 0,
    });
    if app.get_schedule(FrameBegins).is_none() {
        add_schedules(app);
    }
}

/// Only in apps with a target: the others pay nothing.
fn add_schedules(app: &mut App) {
    let mut begins = Schedule::new(FrameBegins);
    begins.set_executor(SingleThreadedExecutor::new());
    begins.add_systems(begin_frame);
    let mut ends = Schedule::new(FrameEnds);
    ends.set_executor(SingleThreadedExecutor::new());
    ends.add_systems(end_frame);
    app.add_schedule(begins).add_schedule(ends);
    let mut order = app.world_mut().resource_mut::<MainScheduleOrder>();
    order.insert_before(First, FrameBegins);
    order.insert_after(Last, FrameEnds);
}

fn begin_frame(guard: Option<ResMut<FrameGuard>>, gate: Res<StepGate>) {
    let Some(mut guard) = guard else { return };
    guard.begun = Instant::now();
    guard.steps = gate.steps();
}

fn end_frame(guard: Option<ResMut<FrameGuard>>, gate: Res<StepGate>) {
    let Some(mut guard) = guard else { return };
    let now = Instant::now();
    let frame = Frame {
        end: now - guard.since,
        work: now - guard.begun,
        stepped: gate.is_running() || gate.steps() != guard.steps,
    };
    if guard.policy.pauses_after(frame) {
        gate.close();
    } else {
        gate.open();
    }
}
