//! A loaded model at work: its jobs, one after the other.

use std::sync::Arc;

use futures_lite::future;

use super::Job;
use crate::{
    Pipeline,
    lifeline::DrainOnDrop,
    memory::{Account, Grant, JobGrant},
};

/// Serves jobs on the device thread, until the model's handle is dropped.
pub(crate) async fn serve<P: Pipeline>(
    pipeline: &P,
    jobs: &DrainOnDrop<Job<P>>,
    account: &Arc<Account>,
) {
    while let Ok(job) = jobs.0.recv().await {
        if let Some((job, grant)) = admit(job, pipeline, account).await {
            job.run(pipeline, grant).await;
        }
    }
}

/// Gets a job its memory and its lease, or ends it, or gives it back.
async fn admit<P: Pipeline>(
    job: Job<P>,
    pipeline: &P,
    account: &Arc<Account>,
) -> Option<(Job<P>, Grant)> {
    let first = account.is_fresh();
    if !job.is_wanted() {
        return None;
    }
    if account.is_draining() && !first {
        job.give_back();
        return None;
    }
    let needed = match job.working_memory(pipeline) {
        Ok(needed) => needed,
        Err(error) => {
            job.refuse(error);
            return None;
        }
    };
    let unwanted = async {
        job.watch().cut().await;
        None
    };
    let granted = async { Some(account.claim_for_job(needed, job.watch(), first).await) };
    match future::or(unwanted, granted).await? {
        JobGrant::Granted(grant) => {
            account.set_fresh(false);
            return Some((job, grant));
        }
        JobGrant::OverBudget(shortage) => job.refuse(shortage.into()),
        JobGrant::Return => job.give_back(),
    }
    None
}
