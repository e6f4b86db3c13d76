//! The frame guard: inference pauses between steps while it costs frames.
//!
//! Measures the work of every frame, all of [`Main`], against
//! [`CandlePlugin::frame_target`]. Waiting for the screen is not in it. And while a frame works, those who move memory
//! about rest.

use std::time::Duration;

use bevy::{app::Main, platform::time::Instant, prelude::*};

#[cfg(doc)]
use crate::CandlePlugin;

mod clock;
mod gate;
mod pacing;
mod policy;
mod rest;

pub(crate) use gate::{Running, StepGate};
use pacing::Pacing;
use policy::{Frame, Policy};
pub(crate) use rest::Rest;

/// Watches the frames of an app.
#[derive(Resource)]
struct FrameGuard {
    /// [`None`]: the last plugin said no target.
    policy: Option<Policy>,
    pacing: Pacing,
    /// The policy's clock starts here.
    since: Instant,
    begun: Instant,
    /// How long before it the frame before began, and how long the game then waited.
    period: Duration,
    gap: Duration,
    /// When the last frame ended, and how long it took.
    ended: Instant,
    worked: Duration,
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
        pacing: Pacing::default(),
        since: now,
        begun: now,
        period: Duration::ZERO,
        gap: Duration::ZERO,
        ended: now,
        worked: Duration::ZERO,
        steps: (0, false),
    });
    let watch = (
        begin_frame.before(Main::run_main),
        end_frame.after(Main::run_main),
    );
    app.init_resource::<StepGate>()
        .init_resource::<Rest>()
        .add_systems(Main, watch);
}

fn begin_frame(mut guard: ResMut<FrameGuard>, gate: Res<StepGate>, rest: Res<Rest>) {
    let now = Instant::now();
    (guard.period, guard.gap) = (now - guard.begun, now - guard.ended);
    guard.begun = now;
    let (worked, gap) = (guard.worked, guard.gap);
    let length = guard.pacing.rest_in_next(worked, gap);
    let is_guarded = guard.policy.is_some();
    rest.begin(now, if is_guarded { length } else { Duration::ZERO });
    guard.steps = (gate.steps(), gate.is_running());
}

fn end_frame(mut guard: ResMut<FrameGuard>, gate: Res<StepGate>, rest: Res<Rest>) {
    let now = Instant::now();
    rest.end(now, guard.begun + guard.period, guard.gap);
    (guard.ended, guard.worked) = (now, now - guard.begun);
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Whether there was a rest, as each frame saw it.
    #[derive(Resource, Default)]
    struct Rests(Vec<bool>);

    /// An app that has worked for 5 ms and waited for 10 before each of two frames, and whether others rested in them.
    fn rests_in(targets: [Option<Duration>; 2]) -> Vec<bool> {
        let mut app = App::new();
        let look = |guard: Res<FrameGuard>, rest: Res<Rest>, mut rests: ResMut<Rests>| {
            rests.0.push(rest.is_on(guard.begun));
        };
        app.init_resource::<Rests>().add_systems(Update, look);
        for target in targets {
            guard_frames(&mut app, target);
            let mut guard = app.world_mut().resource_mut::<FrameGuard>();
            guard.worked = 5 * MS;
            guard.ended = Instant::now()
                .checked_sub(10 * MS)
                .expect("the machine runs for longer");
            app.update();
            let soon = Instant::now() + MS;
            assert!(
                !app.world().resource::<Rest>().is_on(soon),
                "between frames"
            );
        }
        std::mem::take(&mut app.world_mut().resource_mut::<Rests>().0)
    }

    #[test]
    fn others_rest_while_a_frame_works() {
        assert_eq!(rests_in([Some(16 * MS); 2]), [true, true]);
    }

    #[test]
    fn nobody_rests_any_more_where_the_target_was_taken_away() {
        assert_eq!(rests_in([Some(16 * MS), None]), [true, false]);
    }
}
