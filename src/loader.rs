//! [`LoaderService`]: starts, watches and cancels loads.
//!
//! ```text
//!  main thread          AsyncComputeTaskPool       reader threads          device thread
//!  start() ───────────► load task: plan, claim ──► read, cast in chunks ─► owner: keeps the tensors,
//!  Load (the handle)    (owns no weights)          (own their buffers)     builds, runs, drops
//!     └── dropped: the task ends, the readers stop at the next chunk, the owner at its next await ──┘
//! ```
//!
//! Every buffer travels with the load's [`Ticket`]. When the last holder is done, on whatever thread,
//! the memory is measured on the device thread and the manager hears that it is back.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bevy::{
    prelude::*,
    tasks::{AsyncComputeTaskPool, Task, TaskPool},
};

use candle_core::DType;

use crate::{
    DeviceChoice, LoadError, ModelSource, Pipeline, ResourceManager,
    device::DeviceThread,
    infer::Job,
    lifeline::{Lifeline, Watch},
    manager::{Event, Mailbox},
    threads::deadline_in,
};

mod batch;
mod cast;
mod load_steps;
mod owner;
mod plan;
mod progress;
mod readers;
mod safetensors;
mod task;
mod ticket;
mod weights;

pub use load_steps::LoadSteps;
use owner::{OwnerSetup, spawn_owner};
pub use plan::Plan;
pub(crate) use progress::ProgressCell;
pub use progress::{LoadPhase, Progress};
use readers::Readers;
use task::LoadTask;
pub(crate) use ticket::Gone;

/// Starts loads, and owns the threads that they need: the readers and the device's.
///
/// The threads start with the app and end with it. Cancelling is dropping the handle that
/// `start` returns.
#[derive(Resource)]
pub struct LoaderService {
    /// Ends all loads of the app. The first field: a world that is torn down drops resources in any
    /// order, and the threads can only be joined when nothing is wanted of them any more.
    app: (Lifeline, Watch),
    /// The folder that relative model paths start at.
    root: PathBuf,
    device: DeviceChoice,
    threads: Option<NonZeroUsize>,
    shutdown_timeout: Duration,
    memory: ResourceManager,
    executors: Option<Executors>,
}

/// The threads that this app uses. Other apps of the process may use them too.
struct Executors {
    readers: Arc<Readers>,
    device: Arc<DeviceThread>,
}

/// A load, and then the model that it became: dropping it cancels the one and unloads the other.
pub(crate) struct Load<P: Pipeline> {
    /// The first field: fields drop in order, and whoever sees the others go looks at this one.
    _lifeline: Lifeline,
    jobs: async_channel::Sender<Job<P>>,
    progress: Arc<ProgressCell>,
    _task: Task<()>,
}

impl<P: Pipeline> Load<P> {
    /// Bytes claimed of the budget, 0 while planning.
    pub(crate) fn claimed(&self) -> u64 {
        self.progress.claimed()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Hands a job to the model. Where that has gone meanwhile, the dropped job says so by itself.
    pub(crate) fn run(&self, job: Job<P>) {
        let _ = self.jobs.try_send(job);
    }
}

impl LoaderService {
    pub(crate) fn new(
        plugin: &crate::CandlePlugin,
        root: PathBuf,
        memory: ResourceManager,
    ) -> Self {
        Self {
            app: Lifeline::new(),
            root,
            device: plugin.device,
            threads: plugin.threads,
            shutdown_timeout: plugin.shutdown_timeout,
            memory,
            executors: None,
        }
    }

    pub(crate) fn set_root(&mut self, root: PathBuf) {
        self.root = root;
    }

    /// Returns the folder that relative model paths start at.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts the threads, where they are not running yet.
    pub(crate) fn open(&mut self) -> Result<(), LoadError> {
        self.executors().map(drop)
    }

    fn executors(&mut self) -> Result<&Executors, LoadError> {
        if cfg!(any(target_family = "wasm", target_os = "android")) {
            return Err(LoadError::Unsupported);
        }
        let running = match self.executors.take() {
            Some(running) => running,
            None => Executors {
                readers: Readers::shared(self.shutdown_timeout)?,
                device: DeviceThread::shared(self.device, self.threads, self.shutdown_timeout)?,
            },
        };
        Ok(self.executors.insert(running))
    }

    /// Starts a load. Its end is told to `mailbox` in any case, as `Built` or as `Gone`.
    pub(crate) fn start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        mailbox: Mailbox<P>,
    ) -> Option<Load<P>> {
        self.try_start(source, generation, mailbox.clone())
            .map_err(|error| mailbox.send(Event::Gone(Gone::without_memory(generation, error))))
            .ok()
    }

    fn try_start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        mailbox: Mailbox<P>,
    ) -> Result<Load<P>, LoadError> {
        let (files, dtype) = (source.open(&self.root), runnable(source.run_dtype())?);
        let (lifeline, watch) = Lifeline::new();
        let watch = watch.and(&self.app.1);
        let memory = self.memory.clone();
        let executors = self.executors()?;
        let (jobs, queue) = async_channel::unbounded();
        let progress = Arc::new(ProgressCell::default());
        let signal = mailbox.signal();
        let setup = OwnerSetup {
            generation,
            watch,
            dtype,
            progress: progress.clone(),
            jobs: queue,
            mailbox,
        };
        let owner = spawn_owner::<P>(&executors.device.handle(), setup);
        let readers = executors.readers.handle();
        let task = LoadTask::<P> {
            files,
            dtype,
            memory,
            readers,
            progress: progress.clone(),
            signal,
            owner,
        };
        let pool = AsyncComputeTaskPool::get_or_init(TaskPool::default);
        Ok(Load {
            _lifeline: lifeline,
            jobs,
            progress,
            _task: pool.spawn(task.run()),
        })
    }

    /// Ends the threads, or leaves them to the process's other apps.
    pub(crate) fn end(&mut self, deadline: Instant) {
        let Some(Executors { readers, device }) = self.executors.take() else {
            return;
        };
        let (mut readers, mut device) = (Arc::into_inner(readers), Arc::into_inner(device));
        readers.iter_mut().for_each(Readers::stop);
        device.iter_mut().for_each(DeviceThread::stop);
        // Threads that are idle need a moment to end, even where a stuck one has used up the time.
        let deadline = deadline.max(deadline_in(GRACE));
        device.iter_mut().for_each(|device| device.join(deadline));
        readers
            .iter_mut()
            .for_each(|readers| readers.join(deadline));
    }
}

/// How long idle threads have to end.
const GRACE: Duration = Duration::from_millis(200);

/// Weights are converted to floats only.
fn runnable(dtype: DType) -> Result<DType, LoadError> {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(dtype),
        _ => Err(LoadError::UnsupportedRunDtype { dtype }),
    }
}
