//! [`Tape`]: what happened to a manager, to be replayed frame by frame.

use std::{collections::VecDeque, fmt};

use crossbeam_channel::Receiver;

use super::{Event, ModelManager, Residency};
use crate::{ModelSource, Pipeline, infer::JobId};

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
    },
    /// An [`Infer`](crate::Infer) was removed before its end.
    Withdraw {
        /// The job's number.
        job: usize,
    },
    /// A worker was heard.
    News(News),
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
            Self::Infer { job, request } => Self::Infer {
                job: *job,
                request: request.clone(),
            },
            Self::Withdraw { job } => Self::Withdraw { job: *job },
            Self::News(news) => Self::News(*news),
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
    Replays {
        due: VecDeque<News>,
        /// What arrived before its frame, or beside what is due.
        held: VecDeque<Event<P>>,
    },
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

    pub(super) fn note_job(&mut self, id: JobId, request: impl FnOnce() -> P::Request) {
        if !matches!(self.mode, Mode::Off) {
            let job = self.jobs.len();
            self.jobs.push(id);
            let request = request();
            self.note(Happening::Infer { job, request });
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

    /// What is empty in a replay: [`None`] where there is none.
    pub(super) fn has_nothing_due(&self) -> Option<bool> {
        match &self.mode {
            Mode::Replays { due, .. } => Some(due.is_empty()),
            Mode::Off | Mode::Records(_) => None,
        }
    }

    pub(super) fn has_what_is_due(&mut self, events: &Receiver<Event<P>>) -> bool {
        let Mode::Replays { due, held } = &mut self.mode else {
            return true;
        };
        held.extend(events.try_iter());
        let (due, held) = (due.clone(), std::mem::take(held));
        let arrived = |news: &News| held.iter().any(|event| self.news(event) == Some(*news));
        let all = due.iter().all(arrived);
        self.mode = Mode::Replays { due, held };
        all
    }

    pub(super) fn replays(&self) -> bool {
        matches!(self.mode, Mode::Replays { .. })
    }

    pub(super) fn note_event(&mut self, event: &Event<P>) {
        if let Some(news) = self.news(event) {
            self.note(Happening::News(news));
        }
    }

    /// What is left at the end of the app counts, due or not.
    pub(super) fn take_held(&mut self) -> Option<Event<P>> {
        match &mut self.mode {
            Mode::Replays { held, .. } => held.pop_front(),
            Mode::Off | Mode::Records(_) => None,
        }
    }

    pub(super) fn next_due(&mut self) -> Option<Event<P>> {
        let Mode::Replays { due, held } = &self.mode else {
            return None;
        };
        let news = *due.front()?;
        let found = held
            .iter()
            .position(|event| self.news(event) == Some(news))?;
        let Mode::Replays { due, held } = &mut self.mode else {
            return None;
        };
        due.pop_front();
        held.remove(found)
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
        self.received.tape.mode = Mode::Replays {
            due: VecDeque::new(),
            held: VecDeque::new(),
        };
    }

    /// Says what the manager hears in the next frame.
    pub(crate) fn expect_news(&mut self, news: impl IntoIterator<Item = News>) {
        if let Mode::Replays { due, .. } = &mut self.received.tape.mode {
            due.extend(news);
            self.mailbox.wake();
        }
    }

    /// Whether that has arrived.
    pub(crate) fn has_what_is_due(&mut self) -> bool {
        self.received.has_what_is_due()
    }
}
