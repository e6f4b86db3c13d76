//! [`Replay`]: a recorded story, told again.

use std::{num::NonZeroU32, time::Duration};

use bevy::{platform::time::Instant, prelude::*};

use super::Logged;
use crate::{Infer, ModelManager, Pipeline, manager::Happening, memory::arbitrate};

/// How long what was heard in a frame may take to come again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells recorded stories again, frame by frame: the same requests in the same frames, and what workers report
/// only in the frames in which it was heard. The state machine decides on what it decided on then: so the
/// transitions are the same, however fast the workers are.
///
/// The app is a new one, with the kinds of the story and without the systems that asked. What happened at the end
/// of the app is not told again; nor is which jobs a model gave back to make room: where a story has that, a replay
/// may wait in vain, and says for what.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::{prelude::*, test_kit::{Fake, FakeModel, Recorder, RecorderPlugin, Replay, run_until_state}};
///
/// fn app() -> App {
///     let mut app = App::new();
///     app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default(), RecorderPlugin::<Fake>::default()));
///     app
/// }
///
/// let mut recorded = app();
/// let model = FakeModel::new("a");
/// recorded.world_mut().resource_mut::<ModelManager<Fake>>().load(model.source());
/// run_until_state::<Fake>(&mut recorded, ModelState::Loaded);
///
/// let mut again = app();
/// let recorder = recorded.world().resource::<Recorder<Fake>>();
/// Replay::default().kind::<Fake>(&recorder.log).run(&mut again);
/// assert_eq!(again.world().resource::<Recorder<Fake>>().timed_edges(), recorder.timed_edges());
/// ```
#[derive(Default)]
pub struct Replay {
    kinds: Vec<Box<dyn Told>>,
}

impl Replay {
    /// Adds what a [`Recorder`](super::Recorder) wrote down of the models of kind `P`.
    #[must_use]
    pub fn kind<P: Pipeline>(mut self, log: &[Logged<P>]) -> Self {
        self.kinds.push(Box::new(Story {
            log: log.to_vec(),
            jobs: Vec::new(),
        }));
        self
    }

    /// Runs the app to the last frame of the stories.
    ///
    /// # Panics
    /// Where what was heard in a frame does not come again, after half a minute.
    pub fn run(mut self, app: &mut App) {
        for story in &self.kinds {
            story.begin(app);
        }
        let last = self.kinds.iter().map(|story| story.last_frame()).max();
        for frame in 1..=last.unwrap_or_default() {
            for story in &mut self.kinds {
                story.ask(app, frame);
            }
            self.wait(app, frame);
            app.update();
        }
    }

    /// Waits until everything is there that a frame needs. Meanwhile memory is granted as in a frame: workers may
    /// wait for it.
    fn wait(&self, app: &mut App, frame: u64) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(what) = self.waits_for(app) {
            assert!(
                Instant::now() < deadline,
                "frame {frame} waits in vain for {what}"
            );
            app.world_mut()
                .run_system_cached(arbitrate)
                .expect("the system has what it needs");
            std::thread::park_timeout(Duration::from_micros(200));
        }
    }

    fn waits_for(&self, app: &mut App) -> Option<String> {
        self.kinds.iter().find_map(|story| story.waits_for(app))
    }
}

/// The story of one kind.
struct Story<P: Pipeline> {
    log: Vec<Logged<P>>,
    jobs: Vec<Entity>,
}

/// A story whose kind is forgotten.
trait Told {
    fn last_frame(&self) -> u64;
    fn begin(&self, app: &mut App);
    /// Does what was done before a frame.
    fn ask(&mut self, app: &mut App, frame: u64);
    /// What the next frame cannot do without.
    fn waits_for(&self, app: &mut App) -> Option<String>;
}

impl<P: Pipeline> Told for Story<P> {
    fn last_frame(&self) -> u64 {
        self.log.last().map_or(0, |last| last.frame)
    }

    fn begin(&self, app: &mut App) {
        manager::<P>(app).start_replay();
    }

    fn ask(&mut self, app: &mut App, frame: u64) {
        let now = self.log.iter().filter(|logged| logged.frame == frame);
        let now: Vec<_> = now.map(|logged| logged.what.clone()).collect();
        for what in &now {
            self.repeat(app, what.clone());
        }
        manager::<P>(app).expect(&now);
    }

    fn waits_for(&self, app: &mut App) -> Option<String> {
        manager::<P>(app).waits_for()
    }
}

fn manager<P: Pipeline>(app: &mut App) -> Mut<'_, ModelManager<P>> {
    app.world_mut().resource_mut()
}

impl<P: Pipeline> Story<P> {
    fn repeat(&mut self, app: &mut App, what: Happening<P>) {
        match what {
            Happening::Load(source) => manager::<P>(app).load(source),
            Happening::Reload => manager::<P>(app).reload(),
            Happening::Unload => manager::<P>(app).unload(),
            Happening::Cancel => manager::<P>(app).cancel(),
            Happening::Residency(residency) => *manager::<P>(app).residency_mut() = residency,
            Happening::Infer {
                request,
                settings,
                previews,
                ..
            } => {
                *manager::<P>(app).settings_mut() = settings;
                let every = previews.map_or(0, NonZeroU32::get);
                let job = Infer::<P>::new(request).previews_every(every);
                self.jobs.push(app.world_mut().spawn(job).id());
            }
            Happening::Withdraw { job } => {
                if let Ok(mut entity) = app.world_mut().get_entity_mut(self.jobs[job]) {
                    entity.remove::<Infer<P>>();
                }
            }
            Happening::News(_) | Happening::Step(_) => {}
        }
    }
}
