//! [`Load`]: a load, and then the model that it became.

use std::sync::Arc;

use async_channel::Receiver;
use bevy::tasks::{AsyncComputeTaskPool, Task, TaskPool};
use candle_core::DType;

use super::{
    owner::{OwnerLink, OwnerSetup, spawn_owner},
    progress::{Progress, ProgressCell},
    readers::ReaderHandle,
    task::LoadTask,
};
use crate::{
    Pipeline,
    device::DeviceHandle,
    frame_guard::Rest,
    infer::{Host, Job},
    lifeline::{Lifeline, Watch},
    mailbox::Mailbox,
    memory::Account,
    source::HeldFiles,
};

/// A load, and then the model that it became: dropping it cancels the one and unloads the other.
pub(crate) struct Load<P: Pipeline> {
    /// The first field: fields drop in order, and whoever sees the others go looks at this one.
    _lifeline: Lifeline,
    /// Ends the jobs of a model that is parked.
    session: Lifeline,
    host: Host,
    generation: u64,
    jobs: async_channel::Sender<Job<P>>,
    progress: Arc<ProgressCell>,
    account: Arc<Account>,
    _task: Task<()>,
}

impl<P: Pipeline> Load<P> {
    /// Hires an owner and spawns the task. The load ends with its handle, and with the app.
    pub(super) fn begin(setup: LoadSetup<P>, app: &Watch) -> Self {
        let (lifeline, watch) = Lifeline::new();
        let watch = watch.and(app);
        let (jobs, queue) = async_channel::unbounded();
        let progress = Arc::new(ProgressCell::default());
        let (generation, account) = (setup.generation, setup.account.clone());
        let (session, host) = Host::new(watch.clone(), setup.device.clone());
        let owner = setup.hire_owner(&watch, &progress, queue);
        let task = setup.into_task(watch, progress.clone(), owner);
        let pool = AsyncComputeTaskPool::get_or_init(TaskPool::default);
        Self {
            _lifeline: lifeline,
            session,
            host,
            generation,
            jobs,
            progress,
            account,
            _task: pool.spawn(task.run()),
        }
    }

    /// What the books say about it.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The number that its workers know it by. A parked model that comes back keeps it.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Hands a job to the model. Where that has gone meanwhile, the dropped job says so by itself.
    pub(crate) fn run(&self, job: Job<P>) {
        let job = job.hand_over(self.account.hand_over(), self.host.clone());
        let _ = self.jobs.try_send(job);
    }

    /// Ends the jobs that it has, each at its next step. The model stays.
    pub(crate) fn end_session(&mut self) {
        self.session = self.host.begin_session();
    }
}

/// What is loaded, who works on it, and who is told.
pub(super) struct LoadSetup<P: Pipeline> {
    pub(super) files: HeldFiles,
    pub(super) dtype: DType,
    pub(super) generation: u64,
    pub(super) account: Arc<Account>,
    pub(super) readers: ReaderHandle,
    pub(super) rest: Rest,
    pub(super) device: DeviceHandle,
    pub(super) mailbox: Mailbox<P>,
}

impl<P: Pipeline> LoadSetup<P> {
    fn hire_owner(
        &self,
        watch: &Watch,
        progress: &Arc<ProgressCell>,
        jobs: Receiver<Job<P>>,
    ) -> OwnerLink<P::Config> {
        let setup = OwnerSetup {
            generation: self.generation,
            watch: watch.clone(),
            dtype: self.dtype,
            progress: progress.clone(),
            account: self.account.clone(),
            jobs,
            mailbox: self.mailbox.clone(),
        };
        spawn_owner::<P>(&self.device, &self.readers, &self.rest, setup)
    }

    fn into_task(
        self,
        watch: Watch,
        progress: Arc<ProgressCell>,
        owner: OwnerLink<P::Config>,
    ) -> LoadTask<P> {
        LoadTask {
            files: self.files,
            dtype: self.dtype,
            account: self.account,
            watch,
            readers: self.readers,
            progress,
            signal: self.mailbox.signal(),
            owner,
        }
    }
}
