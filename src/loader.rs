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
    any::type_name,
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

#[cfg(feature = "test_kit")]
use crate::device::DeviceContext;
use crate::{
    DeviceChoice, ErrorChain, LoadError, ModelSource, Pipeline, ResourceManager,
    device::{DeviceHandle, DeviceThread},
    infer::{Host, Job},
    lifeline::{Lifeline, Watch},
    manager::{Event, Mailbox},
    memory::{Account, Holder, Ledger, SlotId, default_budget},
    threads::deadline_in,
};

mod arrivals;
mod batch;
mod cast;
#[cfg(any(feature = "cuda", test))]
mod lender;
mod load_steps;
mod owner;
#[cfg(any(feature = "cuda", test))]
mod packing;
#[cfg(feature = "cuda")]
mod pinned;
mod plan;
mod progress;
mod readers;
mod reading;
mod safetensors;
mod shards;
#[cfg(feature = "cuda")]
mod staging;
mod task;
mod ticket;
#[cfg(feature = "cuda")]
mod upload;
mod weights;

pub use load_steps::LoadSteps;
use owner::{OwnerSetup, spawn_owner};
pub use plan::Plan;
pub(crate) use progress::ProgressCell;
pub use progress::{LoadPhase, Progress};
use readers::Readers;
use task::LoadTask;
pub(crate) use ticket::Gone;

/// Starts loads, and owns the threads that they need: the readers, and one for each device.
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
    /// Devices that managers have for themselves.
    others: Vec<DeviceChoice>,
    threads: Option<NonZeroUsize>,
    shutdown_timeout: Duration,
    // The threads that this app uses. Other apps of the process may use them too.
    readers: Option<Arc<Readers>>,
    devices: Vec<(DeviceChoice, Arc<DeviceThread>)>,
}

/// Who loads, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) slot: SlotId,
    /// [`None`]: the app's own device.
    pub(crate) device: Option<DeviceChoice>,
}

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

impl LoaderService {
    /// Takes the settings of the app.
    pub(crate) fn configure(&mut self, plugin: &crate::CandlePlugin) {
        self.device = plugin.device.resolve();
        self.threads = plugin.threads;
        self.shutdown_timeout = plugin.shutdown_timeout;
    }

    /// Has a device opened with the app.
    pub(crate) fn use_device(&mut self, device: DeviceChoice) {
        self.others.push(device.resolve());
    }

    pub(crate) fn set_root(&mut self, root: PathBuf) {
        self.root = root;
    }

    /// Returns the folder that relative model paths start at.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts the threads, where they are not running yet.
    pub(crate) fn open(&mut self, memory: &mut ResourceManager) -> Result<(), LoadError> {
        self.readers()?;
        self.device_thread(self.device, memory)?;
        for device in std::mem::take(&mut self.others) {
            self.device_thread(device, memory)?;
        }
        Ok(())
    }

    fn readers(&mut self) -> Result<&Arc<Readers>, LoadError> {
        if cfg!(any(target_family = "wasm", target_os = "android")) {
            return Err(LoadError::Unsupported);
        }
        let running = match self.readers.take() {
            Some(running) => running,
            None => Readers::shared(self.shutdown_timeout)?,
        };
        Ok(self.readers.insert(running))
    }

    fn device_thread(
        &mut self,
        device: DeviceChoice,
        memory: &mut ResourceManager,
    ) -> Result<Arc<DeviceThread>, LoadError> {
        let known = self
            .devices
            .iter()
            .position(|(choice, _)| *choice == device);
        if let Some(known) = known {
            usable(&self.devices[known].1, &memory.ledger(device))?;
            if self.devices[known].1.is_running() {
                return Ok(self.devices[known].1.clone());
            }
            let (_, lost) = self.devices.swap_remove(known);
            DeviceThread::retire(lost);
        }
        let thread = DeviceThread::shared(device, self.threads, self.shutdown_timeout)?;
        usable(&thread, &memory.ledger(device))?;
        learn(&thread, memory.ledger(device));
        self.devices.push((device, thread.clone()));
        Ok(thread)
    }

    /// Starts a load. Its end is told to `mailbox` in any case, as `Built` or as `Gone`.
    pub(crate) fn start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        place: Place,
        memory: &mut ResourceManager,
        mailbox: Mailbox<P>,
    ) -> Option<Load<P>> {
        self.try_start(source, generation, place, memory, mailbox.clone())
            .map_err(|error| mailbox.send(Event::Gone(Gone::without_memory(generation, error))))
            .ok()
    }

    fn try_start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        place: Place,
        memory: &mut ResourceManager,
        mailbox: Mailbox<P>,
    ) -> Result<Load<P>, LoadError> {
        let (files, dtype) = (source.open(&self.root), runnable(source.run_dtype())?);
        let readers = self.readers()?.handle();
        let device = place.device.unwrap_or(self.device).resolve();
        let thread = self.device_thread(device, memory)?;
        let account = memory.open_account(Holder {
            slot: place.slot,
            kind: type_name::<P>(),
            model_id: source.id(),
            device,
        });
        let (lifeline, watch) = Lifeline::new();
        let watch = watch.and(&self.app.1);
        let (jobs, queue) = async_channel::unbounded();
        let progress = Arc::new(ProgressCell::default());
        let setup = OwnerSetup {
            generation,
            watch: watch.clone(),
            dtype,
            progress: progress.clone(),
            account: account.clone(),
            jobs: queue,
            mailbox: mailbox.clone(),
        };
        let (session, host) = Host::new(watch.clone(), thread.handle());
        let task = LoadTask::<P> {
            files,
            dtype,
            account: account.clone(),
            watch,
            owner: spawn_owner::<P>(&thread.handle(), &readers, setup),
            readers,
            progress: progress.clone(),
            signal: mailbox.signal(),
        };
        let pool = AsyncComputeTaskPool::get_or_init(TaskPool::default);
        Ok(Load {
            _lifeline: lifeline,
            session,
            host,
            generation,
            jobs,
            progress,
            account,
            _task: pool.spawn(task.run()),
        })
    }

    /// Has the devices' threads end, as if the devices were gone.
    #[cfg(feature = "test_kit")]
    pub(crate) fn lose_devices(&self) {
        for (_, thread) in &self.devices {
            thread.handle().run(DeviceContext::lose);
        }
    }

    /// Has the devices be given up, as if their drivers had failed for good.
    #[cfg(feature = "test_kit")]
    pub(crate) fn break_devices(&self, reason: &str) {
        for (_, thread) in &self.devices {
            let reason = reason.to_owned();
            thread.handle().run(move |context| context.give_up(&reason));
        }
    }

    /// Ends the threads, or leaves them to the process's other apps.
    pub(crate) fn end(&mut self, deadline: Instant) {
        let devices = self.devices.drain(..).map(|(_, thread)| thread);
        let mut devices: Vec<_> = devices.filter_map(Arc::into_inner).collect();
        let mut readers = self.readers.take().and_then(Arc::into_inner);
        readers.iter_mut().for_each(Readers::stop);
        devices.iter_mut().for_each(DeviceThread::stop);
        // Threads that are idle need a moment to end, even where a stuck one has used up the time.
        let deadline = deadline.max(deadline_in(GRACE));
        for device in &mut devices {
            device.join(deadline);
        }
        if let Some(readers) = &mut readers {
            readers.join(deadline);
        }
    }
}

/// Refuses a device that its driver has given up, and shows it as such.
fn usable(thread: &DeviceThread, ledger: &Ledger) -> Result<(), LoadError> {
    let handle = thread.handle();
    match (handle.given_up(), handle.unusable()) {
        (Some(reason), Some(error)) => {
            ledger.give_up(reason);
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Has an app's books learn what the device's own thread finds out: its budget, once the device is open, unless the game has
/// said one; and whether it can be used.
fn learn(thread: &DeviceThread, ledger: Arc<Ledger>) {
    let learns = Learns {
        ledger,
        device: thread.handle(),
    };
    thread.handle().run(move |context| {
        let ledger = &learns.ledger;
        context.show_in(ledger);
        match &context.device {
            // A platform that cannot say what it has gets no limit.
            Ok(device) => ledger.learn_budget(default_budget(device).unwrap_or(u64::MAX)),
            Err(error) => ledger.give_up(&ErrorChain(&**error).to_string()),
        }
    });
}

/// Books on their way to a device's thread, which does not look at them any more where the device was given up just before.
struct Learns {
    ledger: Arc<Ledger>,
    device: DeviceHandle,
}

impl Drop for Learns {
    fn drop(&mut self) {
        if let Some(reason) = self.device.given_up() {
            self.ledger.give_up(reason);
        }
    }
}

impl FromWorld for LoaderService {
    fn from_world(_: &mut World) -> Self {
        let plugin = crate::CandlePlugin::default();
        Self {
            app: Lifeline::new(),
            root: PathBuf::new(),
            device: DeviceChoice::Cpu,
            others: Vec::new(),
            threads: plugin.threads,
            shutdown_timeout: plugin.shutdown_timeout,
            readers: None,
            devices: Vec::new(),
        }
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
