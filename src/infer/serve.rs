//! A loaded model at work: its jobs, one after the other.

use std::sync::Arc;

use futures_lite::future;

use super::Job;
use crate::{
    InferError, Pipeline,
    device::{Lent, hear_of_others},
    lifeline::DrainOnDrop,
    memory::{Account, Grant, JobGrant},
    panics::{drop_guarded, guarded},
};

/// Serves jobs on the device thread, until the model's handle is dropped or the device is lost.
pub(crate) async fn serve<P: Pipeline>(
    pipeline: &P,
    jobs: &DrainOnDrop<Job<P>>,
    account: &Arc<Account>,
    lent: &Lent,
) {
    while !lent.is_lost()
        && let Ok(job) = jobs.0.recv().await
    {
        match admit(job, pipeline, account).await {
            Admission::Granted(job, grant) => {
                hear_of_others(&lent.device);
                let explain = |error, needed| lent.job_error(error, needed);
                job.run(pipeline, grant, explain).await;
            }
            Admission::Ended(job) => drop_guarded("a job", job),
            Admission::Refused(job, error) => guarded("a job", || job.refuse(error)),
            Admission::Return(job) => give_back(job, jobs),
        }
    }
}

/// What becomes of a job that wants to start.
enum Admission<P: Pipeline> {
    Granted(Job<P>, Grant),
    Refused(Job<P>, InferError),
    /// Nobody waits for it any more.
    Ended(Job<P>),
    /// It waits for the model to come back.
    Return(Job<P>),
}

/// Gives a job back to its manager, and those behind it: they keep their order.
fn give_back<P: Pipeline>(job: Job<P>, jobs: &DrainOnDrop<Job<P>>) {
    job.give_back();
    while let Ok(job) = jobs.0.try_recv() {
        job.give_back();
    }
}

/// Gets a job its memory and its lease.
async fn admit<P: Pipeline>(job: Job<P>, pipeline: &P, account: &Arc<Account>) -> Admission<P> {
    future::or(job.watch().cut(), job.gate().pass_first()).await;
    let first = account.is_fresh();
    if !job.is_wanted() {
        return Admission::Ended(job);
    }
    if account.is_draining() && !first {
        return Admission::Return(job);
    }
    let needed = match job.working_memory(pipeline) {
        Ok(needed) => needed,
        Err(error) => return Admission::Refused(job, error),
    };
    let unwanted = async {
        job.watch().cut().await;
        None
    };
    let answer = async { Some(account.claim_for_job(needed, job.watch(), first).await) };
    match future::or(unwanted, answer).await {
        Some(JobGrant::Granted(grant)) => {
            account.set_fresh(false);
            Admission::Granted(job, grant)
        }
        Some(JobGrant::OverBudget(shortage)) => Admission::Refused(job, shortage.into()),
        Some(JobGrant::Return) => Admission::Return(job),
        None => Admission::Ended(job),
    }
}
