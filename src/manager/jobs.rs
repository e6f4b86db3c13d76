//! The jobs of a manager: who waits, who is handed to the model, who is refused.

use std::{collections::VecDeque, time::Duration};

use super::ModelManager;
use crate::{
    InferError, ModelState, Pipeline,
    infer::{End, Job, JobId},
    loader::Load,
    machine::Wish,
    mailbox::{Event, Mailbox},
};

/// Jobs that no model has yet, first come first served.
pub(super) struct Waiting<P: Pipeline>(VecDeque<Job<P>>);

impl<P: Pipeline> Default for Waiting<P> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<P: Pipeline> Waiting<P> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a job where it belongs: one that a model gave back was there before others.
    fn insert(&mut self, job: Job<P>) {
        let place = self
            .0
            .partition_point(|other| other.arrived() < job.arrived());
        self.0.insert(place, job);
    }
}

/// How many jobs a model has run to their ends, and for how long.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct JobTally {
    pub(crate) jobs: u32,
    pub(crate) time: Duration,
}

impl JobTally {
    fn add(&mut self, ran: Option<Duration>) {
        if let Some(ran) = ran {
            self.jobs = self.jobs.wrapping_add(1);
            self.time += ran;
        }
    }

    /// The mean time of the jobs since an earlier count; [`None`] where there were none.
    pub(crate) fn mean_since(self, earlier: Self) -> Option<Duration> {
        let jobs = self.jobs.wrapping_sub(earlier.jobs);
        self.time.saturating_sub(earlier.time).checked_div(jobs)
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Returns what its jobs took so far.
    pub(crate) fn tally(&self) -> JobTally {
        self.tally
    }

    /// Takes a new job: runs it where the model is loaded and stays, else keeps it.
    pub(crate) fn queue(&mut self, job: impl FnOnce(Mailbox<P>, P::Settings) -> Job<P>) {
        let job = job(self.mailbox.clone(), self.settings().clone());
        #[cfg(feature = "test_kit")]
        self.received.tape.note_job(&job);
        if self.waiting.is_empty() && self.takes_jobs() {
            self.pipeline.run(job);
        } else {
            self.waiting.insert(job);
            self.mailbox.wake();
        }
    }

    /// Whether the model may get jobs. One that makes room, or is not wanted any more, gets no new ones; and what it
    /// has given back, and is not taken in yet, comes first.
    fn takes_jobs(&self) -> bool {
        let goes = |load: &Load<P>| load.account().is_draining() || load.account().is_evicted();
        self.machine.state() == ModelState::Loaded
            && self.current.leaves_from.is_none()
            && !self.pipeline.load().is_some_and(goes)
            && self.received.is_empty()
    }

    /// Hands over what waits.
    pub(super) fn hand_over_jobs(&mut self) {
        if self.takes_jobs() {
            for job in self.waiting.0.drain(..) {
                self.pipeline.run(job);
            }
        }
    }

    /// Takes in what the workers have sent, and returns the jobs that have ended.
    pub(crate) fn collect(&mut self, now: Option<Duration>) -> Vec<End<P>> {
        self.now = now.unwrap_or(self.now);
        self.refuse_hopeless_jobs();
        let mut ends = std::mem::take(&mut self.late_ends);
        while let Some(event) = self.received.next() {
            ends.extend(self.take_in(event));
        }
        for end in &ends {
            self.tally.add(end.ran());
        }
        if !ends.is_empty() {
            self.note_use();
        }
        // Before anybody chooses who makes room: a model with jobs is not idle.
        self.hand_over_jobs();
        ends
    }

    /// Takes in one event; returns the job that it ends.
    pub(super) fn take_in(&mut self, event: Event<P>) -> Option<End<P>> {
        match event {
            Event::Built(built) if built.generation == self.current.generation => {
                self.current.built = Some(built);
            }
            Event::Built(_) => {}
            Event::Gone(gone) => {
                self.alive.retain(|load| *load != gone.generation);
                // One that has died while it was parked does not come back.
                self.pipeline
                    .thin_out_parked(|_, _, load| load.generation() != gone.generation);
                if gone.generation == self.current.generation {
                    self.current.gone = Some(gone.into());
                }
            }
            Event::Returned(job) if self.current.leaves_for_good => {
                job.refuse(InferError::Unloaded);
            }
            Event::Returned(job) => self.waiting.insert(job),
            Event::End(end) => return Some(end),
        }
        None
    }

    /// Ends the jobs that wait for a model which will not come.
    fn refuse_hopeless_jobs(&mut self) {
        self.waiting.0.retain(Job::is_wanted);
        if self.is_model_coming() {
            return;
        }
        let has_failed = self.machine.state() == ModelState::Failed;
        let reason = has_failed.then(|| self.status.last_error.clone()).flatten();
        let error = reason.map_or(InferError::NotLoaded, InferError::ModelFailed);
        self.refuse_waiting(&error, None);
    }

    /// Ends the jobs that wait, up to those that are for the `next` model.
    pub(super) fn refuse_waiting(&mut self, error: &InferError, next: Option<JobId>) {
        let waiting = &mut self.waiting.0;
        let stay = next.map_or(waiting.len(), |next| {
            waiting.partition_point(|job| job.arrived() < next)
        });
        for job in waiting.drain(..stay) {
            job.refuse(error.clone());
        }
    }

    /// Whether a load is wanted that starts by itself or with a job, or a model is there that makes room. A failed
    /// model that is wanted again before its time has failed, as far as jobs are concerned.
    fn is_model_coming(&self) -> bool {
        let wish = self.wishes.wish();
        let state = self.machine.state();
        let too_soon = state == ModelState::Failed && wish == Wish::Current && !self.is_retry_due();
        let is_there = state == ModelState::Loaded;
        (wish.is_load() || is_there) && !too_soon && !self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_end_together_are_averaged_and_those_that_never_ran_do_not_count() {
        let mut tally = JobTally::default();
        tally.add(Some(Duration::from_millis(7)));
        let earlier = tally;
        assert_eq!(tally.mean_since(earlier), None);
        for millis in [10, 20] {
            tally.add(Some(Duration::from_millis(millis)));
        }
        tally.add(None);
        assert_eq!(tally.mean_since(earlier), Some(Duration::from_millis(15)));
    }
}
