//! [`CandleSystems`] and [`CandleShutdown`]: when things happen.

use std::time::Duration;

use bevy::{
    app::{AppExit, Main, MainScheduleOrder},
    ecs::schedule::{ScheduleLabel, SingleThreadedExecutor},
    platform::time::Instant,
    prelude::*,
};

use crate::{
    loader::LoaderService,
    memory::{arbitrate, show_memory},
    signal::{Alarm, Signal},
    threads::deadline_in,
};

/// The system sets of this crate, in their order.
///
/// The first three stand for one system in [`PreUpdate`], which runs only in frames with news. Systems
/// of your own go before it or after it; nothing fits between the three. What a game asks for in [`Update`] shows in
/// the next frame, what an observer of [`Inferred`](crate::Inferred) asks for in the same one, and from then on for
/// the whole of [`Update`].
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CandleSystems {
    /// Triggers [`InferStep`](crate::InferStep) and [`Inferred`](crate::Inferred). Runs in [`PreUpdate`].
    Deliver,
    /// Grants memory and chooses who makes room; then compares what is wanted with what is, at most one step a
    /// manager. Runs in [`PreUpdate`].
    Reconcile,
    /// Runs `OnExit` and `OnEnter` of the states that changed. Runs in [`PreUpdate`].
    Transition,
    /// Cancels, releases and waits for the memory. Runs in [`CandleShutdown`].
    Release,
    /// Ends and joins the threads. Runs in [`CandleShutdown`].
    Join,
}

/// Runs once, after [`Last`] in the frame in which [`AppExit`] was written, in whatever schedule.
///
/// No frame follows, so this is where the last [`ModelTransition`](crate::ModelTransition)s, with the
/// reason [`Shutdown`](crate::TransitionReason::Shutdown), can be read: after
/// [`CandleSystems::Release`]. Its systems run one after the other, on the thread that updates the app.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct CandleShutdown;

/// What the one system in `PreUpdate` runs.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModelLifecycle;

/// Runs `OnEnter(Idle)` once, before `PreStartup`, as Bevy does for its own states.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EnterFirstStates;

/// When the app stops waiting for its models and threads.
#[derive(Resource)]
pub(crate) struct ShutdownDeadline(pub(crate) Instant);

/// How long the app waits at its end.
#[derive(Resource)]
pub(crate) struct ShutdownTimeout(pub(crate) Duration);

/// Adds the schedules, and the systems that are the same for all kinds.
pub(crate) fn add_schedules(app: &mut App) {
    app.add_schedule(lifecycle())
        .init_schedule(EnterFirstStates)
        // Not anew: a plugin that came before may have systems in it.
        .edit_schedule(CandleShutdown, run_on_this_thread);
    let mut order = app
        .world_mut()
        .get_resource_mut::<MainScheduleOrder>()
        .expect("bevy_candle needs Bevy's main schedules: start from `App::new()`");
    order.insert_startup_before(PreStartup, EnterFirstStates);
    let run_lifecycle = run_lifecycle
        .run_if(has_work)
        .in_set(CandleSystems::Deliver)
        .in_set(CandleSystems::Reconcile)
        .in_set(CandleSystems::Transition);
    app.add_systems(PreUpdate, run_lifecycle)
        // After everything that `Main` runs, also what a game has added after `Last`.
        .add_systems(Main, shut_down.run_if(exiting).after(Main::run_main))
        .configure_sets(
            CandleShutdown,
            (CandleSystems::Release, CandleSystems::Join).chain(),
        )
        .add_systems(CandleShutdown, end_threads.in_set(CandleSystems::Join));
}

fn lifecycle() -> Schedule {
    let mut lifecycle = Schedule::new(ModelLifecycle);
    lifecycle
        .set_executor(SingleThreadedExecutor::new())
        .configure_sets(
            (
                CandleSystems::Deliver,
                CandleSystems::Reconcile,
                CandleSystems::Transition,
            )
                .chain(),
        )
        .add_systems((
            arbitrate
                .after(CandleSystems::Deliver)
                .before(CandleSystems::Reconcile),
            show_memory
                .after(CandleSystems::Reconcile)
                .before(CandleSystems::Transition),
        ));
    lifecycle
}

/// Its systems may wait. On Bevy's pool they would wait on whatever thread takes them: also on that of another app,
/// which may be the one that they wait for.
fn run_on_this_thread(schedule: &mut Schedule) {
    schedule.set_executor(SingleThreadedExecutor::new());
}

fn has_work(signal: Res<Signal>, alarm: Res<Alarm>, time: Option<Res<Time<Real>>>) -> bool {
    signal.look() || time.is_some_and(|time| alarm.is_due(time.elapsed()))
}

/// News is taken here and not in the condition, which Bevy asks even where a game's own condition on
/// one of the sets says no.
fn run_lifecycle(world: &mut World) {
    world.resource::<Signal>().take();
    world.resource_mut::<Alarm>().clear();
    world.run_schedule(ModelLifecycle);
}

fn exiting(exit: Option<Res<Messages<AppExit>>>, deadline: Option<Res<ShutdownDeadline>>) -> bool {
    deadline.is_none() && exit.is_some_and(|messages| !messages.is_empty())
}

fn shut_down(world: &mut World) {
    let timeout = world.resource::<ShutdownTimeout>().0;
    world.insert_resource(ShutdownDeadline(deadline_in(timeout)));
    world.run_schedule(CandleShutdown);
}

fn end_threads(mut loader: ResMut<LoaderService>, deadline: Res<ShutdownDeadline>) {
    loader.end(deadline.0);
}
