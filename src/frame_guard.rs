//! The frame guard: inference pauses between steps while it costs frames.
//!
//! Measures the work of every frame, all of [`Main`], against
//! [`CandlePlugin::frame_target`]. Waiting for the screen is not in it.

use std::time::{Duration, Instant};

use bevy::{app::Main, prelude::*};

#[cfg(doc)]
use crate::CandlePlugin;

mod gate;
mod policy;

pub(crate) use gate::{Running, StepGate};
use policy::{Frame, Policy};

/// Watches the frames of an app.
#[derive(Resource)]
struct FrameGuard {
    /// [`None`]: the last plugin said no target.
    policy: Option<Policy>,
    /// The policy's clock starts here.
    since: Instant,
    begun: Instant,
    /// What the gate had counted when the frame began, and whether a step was running.
    steps: (u64, bool),
}

/// Guards the app's frames from now on, or no longer. Apps that never had a target pay nothing.
pub(crate) fn guard_frames(app: &mut App, target: Option<Duration>) {
    let policy = target.map(Policy::new);
    if let Some(mut guard) = app.world_mut().get_resource_mut::<FrameGuard>() {
        guard.policy = policy;
        return;
    }
    if policy.is_none() {
        return;
    }
    let now = Instant::now();
    app.insert_resource(FrameGuard {
        policy,
        since: now,
        begun: now,
        steps: (0, false),
    });
    let watch = (
        begin_frame.before(Main::run_main),
        end_frame.after(Main::run_main),
    );
    app.init_resource::<StepGate>().add_systems(Main, watch);
}

fn begin_frame(mut guard: ResMut<FrameGuard>, gate: Res<StepGate>) {
    guard.begun = Instant::now();
    guard.steps = (gate.steps(), gate.is_running());
}

fn end_frame(mut guard: ResMut<FrameGuard>, gate: Res<StepGate>) {
    let now = Instant::now();
    let (steps, was_running) = guard.steps;
    let frame = Frame {
        end: now - guard.since,
        work: now - guard.begun,
        stepped: was_running || gate.is_running() || gate.steps() != steps,
    };
    let policy = guard.policy.as_mut();
    if policy.is_some_and(|policy| policy.pauses_after(frame)) {
        gate.close();
    } else {
        gate.open();
    }
}
