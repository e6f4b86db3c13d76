//! [`Tape`]: what happened to a manager, frame by frame, and to be told again.

use std::{collections::VecDeque, fmt, num::NonZeroU32};

use crossbeam_channel::Receiver;

use super::{ModelManager, Residency, stay::is_parked};
use crate::{
    ModelSource, Pipeline,
    infer::{Job, JobId},
    machine::Facts,
    mailbox::Event,
};

/// What a manager was asked for, or heard from its workers.
///
/// Jobs are numbered in the order in which they were inserted, from 0.
#[non_exhaustive]
pub enum Happening<P: Pipeline> {
    /// [`ModelManager::load`].
    Load(ModelSource),
    /// [`ModelManager::reload`].
    Reload,
    /// [`ModelManager::unload`].
    Unload,
    /// [`ModelManager::cancel`].
    Cancel,
    /// [`ModelManager::residency_mut`], with what it was changed to.
    Residency(Residency),
    /// An [`Infer`](crate::Infer) was inserted.
    Infer {
        /// The job's number.
        job: usize,
        /// What was asked for.
        request: P::Request,
        /// The manager's settings at that moment.
        settings: P::Settings,
        /// Every how many steps a preview was asked for.
        previews: Option<NonZeroU32>,
    },
    /// An [`Infer`](crate::Infer) was removed before its end.
    Withdraw {
        /// The job's number.
        job: usize,
    },
    /// A worker was heard.
    News(News),
    /// The state machine took a step, on these facts.
    Step(Facts),
}

/// What a worker tells a manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum News {
    /// The load of a generation is built and warmed up.
    Built(u64),
    /// The load or the model of a generation has ended, and its memory is back.
    Gone(u64),
    /// A job has ended.
    Ended(usize),
    /// A job came back from a model that makes room.
    Returned(usize),
}

impl<P: Pipeline> Clone for Happening<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Load(source) => Self::Load(source.clone()),
            Self::Reload => Self::Reload,
            Self::Unload => Self::Unload,
            Self::Cancel => Self::Cancel,
            Self::Residency(residency) => Self::Residency(*residency),
            Self::Infer {
                job,
                request,
                settings,
                previews,
            } => Self::Infer {
                job: *job,
                request: request.clone(),
                settings: settings.clone(),
                previews: *previews,
            },
            Self::Withdraw { job } => Self::Withdraw { job: *job },
            Self::News(news) => Self::News(*news),
            Self::Step(facts) => Self::Step(*facts),
        }
    }
}

impl<P: Pipeline> fmt::Debug for Happening<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(source) => write!(f, "load {}", source.id()),
            Self::Reload => f.write_str("reload"),
            Self::Unload => f.write_str("unload"),
            Self::Cancel => f.write_str("cancel"),
            Self::Residency(residency) => residency.fmt(f),
            Self::Infer { job, .. } => write!(f, "infer {job}"),
            Self::Withdraw { job } => write!(f, "withdraw {job}"),
            Self::News(news) => news.fmt(f),
            Self::Step(facts) => write!(f, "step on {facts:?}"),
        }
    }
}

/// Off, until a recorder or a replay wants it.
pub(super) struct Tape<P: Pipeline> {
    mode: Mode<P>,
    jobs: Vec<JobId>,
    residency: Residency,
}

enum Mode<P: Pipeline> {
    Off,
    Records(Vec<Happening<P>>),
    Replays(Frame<P>),
}

/// A frame of a replay.
struct Frame<P: Pipeline> {
    due: VecDeque<News>,
    /// What the machine decides on, in the frames in which it takes a step.
    step: Option<Facts>,
    /// What arrived before its frame, or beside what is due.
    held: VecDeque<Event<P>>,
}

impl<P: Pipeline> Default for Tape<P> {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            jobs: Vec::new(),
            residency: Residency::default(),
        }
    }
}

impl<P: Pipeline> Tape<P> {
    pub(super) fn note(&mut self, what: Happening<P>) {
        if let Mode::Records(log) = &mut self.mode {
            log.push(what);
        }
    }

    pub(super) fn note_job(&mut self, job: &Job<P>) {
        if !matches!(self.mode, Mode::Off) {
            let number = self.jobs.len();
            self.jobs.push(job.id());
            self.note(Happening::Infer {
                job: number,
                request: job.request().clone(),
                settings: job.settings().clone(),
                previews: job.previews(),
            });
        }
    }

    fn job(&self, id: JobId) -> Option<usize> {
        self.jobs.iter().position(|job| *job == id)
    }

    fn news(&self, event: &Event<P>) -> Option<News> {
        match event {
            Event::Built(built) => Some(News::Built(built.generation)),
            Event::Gone(gone) => Some(News::Gone(gone.generation)),
            Event::End(end) => self.job(end.id()).map(News::Ended),
            Event::Returned(job) => self.job(job.id()).map(News::Returned),
        }
    }

    fn frame(&mut self) -> Option<&mut Frame<P>> {
        match &mut self.mode {
            Mode::Replays(frame) => Some(frame),
            Mode::Off | Mode::Records(_) => None,
        }
    }

    /// What is empty in a replay: [`None`] where there is none.
    pub(super) fn has_nothing_due(&self) -> Option<bool> {
        match &self.mode {
            Mode::Replays(frame) => Some(frame.due.is_empty()),
            Mode::Off | Mode::Records(_) => None,
        }
    }

    /// Takes in what has arrived, and returns what is due and has not. A job comes back only where the models make
    /// room as they did.
    pub(super) fn missing(&mut self, events: &Receiver<Event<P>>) -> Vec<News> {
        let Some(frame) = self.frame() else {
            return Vec::new();
        };
        frame.held.extend(events.try_iter());
        let Mode::Replays(Frame { due, held, .. }) = &self.mode else {
            return Vec::new();
        };
        let arrived = |news: &News| held.iter().any(|event| self.news(event) == Some(*news));
        let due = due.iter().filter(|news| !matches!(news, News::Returned(_)));
        due.filter(|news| !arrived(news)).copied().collect()
    }

    pub(super) fn replays(&self) -> bool {
        matches!(self.mode, Mode::Replays(_))
    }

    pub(super) fn note_event(&mut self, event: &Event<P>) {
        if let Some(news) = self.news(event) {
            self.note(Happening::News(news));
        }
    }

    /// What is left at the end of the app counts, due or not.
    pub(super) fn take_held(&mut self) -> Option<Event<P>> {
        self.frame()?.held.pop_front()
    }

    pub(super) fn next_due(&mut self) -> Option<Event<P>> {
        while let Some(news) = self.frame()?.due.pop_front() {
            let Mode::Replays(frame) = &self.mode else {
                return None;
            };
            let mut held = frame.held.iter();
            let found = held.position(|event| self.news(event) == Some(news));
            if let Some(found) = found {
                return self.frame()?.held.remove(found);
            }
        }
        None
    }

    /// What the machine decides on: in a replay what it decided on, in its frame, and else nothing.
    pub(super) fn decide(&mut self, facts: Facts) -> Option<Facts> {
        match &mut self.mode {
            Mode::Replays(frame) => {
                let step = frame.step.take()?;
                let (asked, told) = ((facts.wish, facts.asleep), (step.wish, step.asleep));
                assert_eq!(asked, told, "the replay asks for something else");
                Some(step)
            }
            Mode::Off | Mode::Records(_) => Some(facts),
        }
    }
}

/// For recorders and replays.
impl<P: Pipeline> ModelManager<P> {
    pub(crate) fn start_recording(&mut self) {
        self.received.tape.mode = Mode::Records(Vec::new());
        self.received.tape.residency = self.residency;
    }

    /// Takes what was written down since the last call.
    pub(crate) fn take_recorded(&mut self) -> Vec<Happening<P>> {
        let residency = self.residency;
        let tape = &mut self.received.tape;
        let Mode::Records(log) = &mut tape.mode else {
            return Vec::new();
        };
        let mut taken = std::mem::take(log);
        if std::mem::replace(&mut tape.residency, residency) != residency {
            taken.push(Happening::Residency(residency));
        }
        taken
    }

    /// Writes down that a job was withdrawn, unless its end, just taken in, is why it goes.
    pub(crate) fn note_withdrawn(&mut self, id: JobId) {
        let tape = &mut self.received.tape;
        let Some(job) = tape.job(id) else { return };
        let ended = |what: &Happening<P>| matches!(what, Happening::News(News::Ended(ended)) if *ended == job);
        match &mut tape.mode {
            Mode::Records(log) if !log.iter().any(ended) => log.push(Happening::Withdraw { job }),
            _ => {}
        }
    }

    /// Has the manager hear what a replay says, and nothing else.
    pub(crate) fn start_replay(&mut self) {
        self.received.tape.mode = Mode::Replays(Frame {
            due: VecDeque::new(),
            step: None,
            held: VecDeque::new(),
        });
    }

    /// Says what the manager hears in the next frame, and what it decides on.
    pub(crate) fn expect<'a>(&mut self, story: impl IntoIterator<Item = &'a Happening<P>>) {
        let Some(frame) = self.received.tape.frame() else {
            return;
        };
        for what in story {
            match what {
                Happening::News(news) => frame.due.push_back(*news),
                Happening::Step(facts) => frame.step = Some(*facts),
                _ => {}
            }
        }
        self.mailbox.wake();
    }

    /// Returns what the next frame of a replay cannot do without: [`None`] where everything is there.
    pub(crate) fn waits_for(&mut self) -> Option<String> {
        let mut missing = self.received.missing();
        // A load that is let go may end earlier than it did.
        let leaves = self.machine.is_leaving();
        missing.retain(|news| !(leaves && matches!(news, News::Built(_))));
        if !missing.is_empty() {
            return Some(format!("{missing:?}"));
        }
        let step = self.received.tape.frame()?.step?;
        let is_quiet = self
            .current
            .parking
            .as_ref()
            .is_none_or(|parked| is_parked(parked));
        let waits = step.ended.is_some() && !is_quiet;
        waits.then(|| "a model to be parked".to_owned())
    }
}
