//! [`Replay`]: a recorded story, told again.

use bevy::prelude::*;

use super::{Logged, wait_until};
use crate::{
    Infer, ModelManager, Pipeline,
    manager::{Happening, News},
};

/// Tells recorded stories again, frame by frame: the same requests in the same frames, and what workers report
/// only in the frames in which it was heard. So the transitions are the same, however fast the workers are.
///
/// The app is a new one, with the kinds of the story and without the systems that asked. What is not in a log
/// is not replayed: settings, the clock (set `TimeUpdateStrategy` in both apps where time-outs matter; a failed
/// model is tried again once a second on the system's), and which models make room for each other.
///
/// ```no_run
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
///
/// Experimental: it waits in vain now and then for what workers reported.
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
            for story in &self.kinds {
                wait_until("what workers reported", || story.is_ready(app));
            }
            app.update();
        }
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
    fn is_ready(&self, app: &mut App) -> bool;
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
        let news: Vec<News> = now.iter().filter_map(as_news).collect();
        for what in now {
            self.repeat(app, what);
        }
        manager::<P>(app).expect_news(news);
    }

    fn is_ready(&self, app: &mut App) -> bool {
        manager::<P>(app).has_what_is_due()
    }
}

fn as_news<P: Pipeline>(what: &Happening<P>) -> Option<News> {
    match what {
        Happening::News(news) => Some(*news),
        _ => None,
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
            Happening::Infer { request, .. } => {
                let job = app.world_mut().spawn(Infer::<P>::new(request)).id();
                self.jobs.push(job);
            }
            Happening::Withdraw { job } => {
                if let Ok(mut entity) = app.world_mut().get_entity_mut(self.jobs[job]) {
                    entity.remove::<Infer<P>>();
                }
            }
            Happening::News(_) => {}
        }
    }
}
