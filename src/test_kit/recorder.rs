//! [`Recorder`]: what happened to the models of one kind, frame by frame.

use std::{fmt, marker::PhantomData};

use bevy::{
    ecs::{lifecycle::Discard, message::MessageCursor},
    prelude::*,
};

use crate::{
    CandlePlugin, CandleShutdown, CandleSystems, Infer, ModelManager, ModelState, ModelTransition,
    Pipeline, StateOf, TransitionReason, manager::Happening, schedule::ModelLifecycle,
};

/// Something that happened, and when.
#[non_exhaustive]
pub struct Logged<P: Pipeline> {
    /// The frame in which the manager took it in, from 1.
    pub frame: u64,
    /// What was asked for, or what a worker reported.
    pub what: Happening<P>,
}

impl<P: Pipeline> Clone for Logged<P> {
    fn clone(&self) -> Self {
        let (frame, what) = (self.frame, self.what.clone());
        Self { frame, what }
    }
}

impl<P: Pipeline> fmt::Debug for Logged<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.frame, self.what)
    }
}

/// Everything that an app saw of the models of kind `P`. Added by [`RecorderPlugin`].
#[derive(Resource)]
pub struct Recorder<P: Pipeline> {
    /// Every message.
    pub transitions: Vec<ModelTransition<P>>,
    /// Every `OnEnter`.
    pub entered: Vec<ModelState>,
    /// Every `OnExit`.
    pub exited: Vec<ModelState>,
    /// In each `Update`: the property, and the Bevy state.
    pub shown: Vec<(ModelState, ModelState)>,
    /// Every request and what workers reported, with the frames; [`Replay`](super::Replay) tells it again.
    pub log: Vec<Logged<P>>,
    /// Frames that have begun.
    frame: u64,
    /// The frame of each message.
    frames: Vec<u64>,
    /// One for both systems, so that no message is recorded twice.
    cursor: MessageCursor<ModelTransition<P>>,
}

impl<P: Pipeline> Default for Recorder<P> {
    fn default() -> Self {
        Self {
            transitions: Vec::new(),
            entered: Vec::new(),
            exited: Vec::new(),
            shown: Vec::new(),
            log: Vec::new(),
            frame: 0,
            frames: Vec::new(),
            cursor: MessageCursor::default(),
        }
    }
}

impl<P: Pipeline> Recorder<P> {
    /// Returns the edges that were taken, with their reasons.
    pub fn edges(&self) -> Vec<(ModelState, ModelState, TransitionReason)> {
        self.transitions
            .iter()
            .map(|seen| (seen.from, seen.to, seen.reason))
            .collect()
    }

    /// Returns the edges that were taken, with their frames.
    pub fn timed_edges(&self) -> Vec<(u64, ModelState, ModelState, TransitionReason)> {
        let edges = self.transitions.iter().zip(&self.frames);
        edges
            .map(|(seen, frame)| (*frame, seen.from, seen.to, seen.reason))
            .collect()
    }

    /// Checks that the property, the Bevy state and the messages told the same story, by edges that
    /// exist.
    ///
    /// # Panics
    /// With what disagrees.
    pub fn assert_consistent(&self) {
        for (property, state) in &self.shown {
            assert_eq!(
                property, state,
                "the property and the Bevy state differ in an `Update`"
            );
        }
        for seen in &self.transitions {
            assert!(seen.from.can_become(seen.to), "{seen:?} is no edge");
        }
        for pair in self.transitions.windows(2) {
            assert_eq!(
                pair[0].to, pair[1].from,
                "an edge is missing between {:?} and {:?}",
                pair[0], pair[1]
            );
        }
        // At the end of an app the last edges are only written: no frame follows.
        let in_frames = self
            .transitions
            .iter()
            .filter(|seen| seen.reason != TransitionReason::Shutdown);
        let (from, to): (Vec<_>, Vec<_>) = in_frames.map(|seen| (seen.from, seen.to)).unzip();
        assert_eq!(self.exited, from, "`OnExit` ran for every edge");
        assert_eq!(
            self.entered[..1],
            [ModelState::Idle],
            "`OnEnter(Idle)` ran at the start"
        );
        assert_eq!(self.entered[1..], to, "`OnEnter` ran for every edge");
        let mut story: Vec<_> = self.shown.iter().map(|(property, _)| *property).collect();
        story.dedup();
        let told: Vec<_> = if story.first() == Some(&ModelState::Idle) {
            self.entered.clone()
        } else {
            to
        };
        assert_eq!(story, told, "every state shows in at least one `Update`");
    }
}

/// Records what happens to the models of kind `P`.
pub struct RecorderPlugin<P: Pipeline>(PhantomData<fn() -> P>);

impl<P: Pipeline> Default for RecorderPlugin<P> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<P: Pipeline> Plugin for RecorderPlugin<P> {
    fn build(&self, app: &mut App) {
        // The schedules have to be there.
        if !app.is_plugin_added::<CandlePlugin>() {
            app.add_plugins(CandlePlugin::default());
        }
        app.world_mut()
            .get_resource_or_init::<ModelManager<P>>()
            .start_recording();
        app.init_resource::<Recorder<P>>()
            .add_systems(First, count_frames::<P>)
            .add_systems(
                ModelLifecycle,
                record_happenings::<P>
                    .after(CandleSystems::Reconcile)
                    .before(CandleSystems::Transition),
            )
            .add_observer(record_withdrawals::<P>)
            .add_systems(Update, (record_transitions::<P>, show::<P>))
            .add_systems(
                CandleShutdown,
                record_transitions::<P>.after(CandleSystems::Release),
            );
        for state in ModelState::ALL {
            app.add_systems(
                OnEnter(state.of::<P>()),
                move |mut seen: ResMut<Recorder<P>>| seen.entered.push(state),
            )
            .add_systems(
                OnExit(state.of::<P>()),
                move |mut seen: ResMut<Recorder<P>>| seen.exited.push(state),
            );
        }
    }
}

fn record_transitions<P: Pipeline>(
    mut recorder: ResMut<Recorder<P>>,
    messages: Res<Messages<ModelTransition<P>>>,
) {
    let Recorder {
        transitions,
        cursor,
        frame,
        frames,
        ..
    } = &mut *recorder;
    transitions.extend(cursor.read(&messages).cloned());
    frames.resize(transitions.len(), *frame);
}

fn count_frames<P: Pipeline>(mut recorder: ResMut<Recorder<P>>) {
    recorder.frame += 1;
}

/// What comes after the manager has looked belongs to the next frame.
fn record_happenings<P: Pipeline>(
    mut recorder: ResMut<Recorder<P>>,
    mut manager: ResMut<ModelManager<P>>,
) {
    let Recorder { log, frame, .. } = &mut *recorder;
    let taken = manager.bypass_change_detection().take_recorded();
    log.extend(taken.into_iter().map(|what| {
        let frame = *frame;
        Logged { frame, what }
    }));
}

/// A job that has ended is removed by its end, which is in the log already.
fn record_withdrawals<P: Pipeline>(
    gone: On<Discard, Infer<P>>,
    jobs: Query<&Infer<P>>,
    manager: Option<ResMut<ModelManager<P>>>,
) {
    if let (Ok(infer), Some(mut manager)) = (jobs.get(gone.entity), manager) {
        let id = infer.id();
        manager.bypass_change_detection().note_withdrawn(id);
    }
}

fn show<P: Pipeline>(
    mut recorder: ResMut<Recorder<P>>,
    manager: Res<ModelManager<P>>,
    state: Res<State<StateOf<P>>>,
) {
    recorder.shown.push((manager.current_state, state.state));
}
