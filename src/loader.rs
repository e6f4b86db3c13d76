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
//! it is given back and measured off the main thread, and the manager hears that it is back.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bevy::{platform::time::Instant, prelude::*};
use candle_core::DType;

use crate::{
    CandlePlugin, DeviceChoice, LoadError, ModelSource, Pipeline, ResourceManager,
    device::{DeviceThread, IS_SUPPORTED},
    frame_guard::Rest,
    kinds::kind_name,
    lifeline::{Lifeline, Watch},
    mailbox::{Event, Mailbox},
    memory::{Holder, SlotId},
    threads::deadline_in,
};

mod arrivals;
mod batch;
mod cast;
mod devices;
mod host_tensor;
#[cfg(any(feature = "cuda", test))]
mod lender;
mod load;
mod load_steps;
mod owner;
#[cfg(any(feature = "cuda", test))]
mod packing;
#[cfg(feature = "cuda")]
mod pinned;
mod plan;
mod plan_files;
mod progress;
mod readers;
mod reading;
mod safetensors;
mod shards;
mod shares;
#[cfg(feature = "cuda")]
mod staging;
mod task;
mod ticket;
#[cfg(feature = "cuda")]
mod upload;
mod weights;

use devices::Devices;
pub(crate) use load::Load;
use load::LoadSetup;
pub use load_steps::LoadSteps;
pub use plan::Plan;
pub use progress::{LoadPhase, Progress};
use readers::Readers;
pub(crate) use readers::drop_apart;
pub(crate) use ticket::Gone;

/// Starts loads, and owns the threads that they need: the readers, and those of each device.
///
/// The readers are shared by all kinds of models, and by the apps of the process; so is the thread of a device. They
/// start with the first app that needs them, and end with the last. A game talks to a
/// [`ModelManager`](crate::ModelManager) instead, which starts a load here, and cancels it by letting go of it.
#[derive(Resource)]
pub struct LoaderService {
    /// Ends all loads of the app. A world that is torn down drops resources in any order, and the threads can only be
    /// joined when nothing is wanted of them any more.
    app: (Lifeline, Watch),
    /// The folder that relative model paths start at.
    root: PathBuf,
    shutdown_timeout: Duration,
    /// Other apps of the process may use them, too.
    readers: Option<Arc<Readers>>,
    devices: Devices,
    /// When loads leave the machine to the game.
    rest: Rest,
}

/// Who loads, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) slot: SlotId,
    /// [`None`]: the app's own device.
    pub(crate) device: Option<DeviceChoice>,
}

impl LoaderService {
    /// Takes the settings of the app.
    pub(crate) fn configure(&mut self, plugin: &CandlePlugin) {
        self.devices.configure(plugin);
        self.shutdown_timeout = plugin.shutdown_timeout;
    }

    /// Has a device opened with the app.
    pub(crate) fn use_device(&mut self, device: DeviceChoice) {
        self.devices.add(device);
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
        self.devices.open(memory)
    }

    fn readers(&mut self) -> Result<&Arc<Readers>, LoadError> {
        if !IS_SUPPORTED {
            return Err(LoadError::Unsupported);
        }
        let running = match self.readers.take() {
            Some(running) => running,
            None => Readers::shared(self.shutdown_timeout)?,
        };
        Ok(self.readers.insert(running))
    }

    /// Starts a load. Its end is told to `mailbox` in any case, as `Built` or as `Gone`.
    pub(crate) fn start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        seat: Seat,
        memory: &mut ResourceManager,
        mailbox: Mailbox<P>,
    ) -> Option<Load<P>> {
        self.try_start(source, generation, seat, memory, mailbox.clone())
            .map_err(|error| mailbox.send(Event::Gone(Gone::without_memory(generation, error))))
            .ok()
    }

    fn try_start<P: Pipeline>(
        &mut self,
        source: &ModelSource,
        generation: u64,
        seat: Seat,
        memory: &mut ResourceManager,
        mailbox: Mailbox<P>,
    ) -> Result<Load<P>, LoadError> {
        let (files, dtype) = (source.open(&self.root), runnable(source.run_dtype())?);
        let readers = self.readers()?.handle();
        let device = self.devices.of(seat.device);
        let thread = self.devices.thread(device, memory)?;
        let account = memory.open_account(Holder {
            slot: seat.slot,
            kind: kind_name::<P>(),
            model_id: source.id(),
            device,
        });
        let setup = LoadSetup {
            files,
            dtype,
            generation,
            account,
            readers,
            rest: self.rest.clone(),
            device: thread.handle(),
            mailbox,
        };
        Ok(Load::begin(setup, &self.app.1))
    }

    /// Has the devices' threads end, as if the devices were gone.
    #[cfg(feature = "test_kit")]
    pub(crate) fn lose_devices(&self) {
        self.devices.lose();
    }

    /// Has the devices be given up, as if their drivers had failed for good.
    #[cfg(feature = "test_kit")]
    pub(crate) fn break_devices(&self, reason: &str) {
        self.devices.give_up(reason);
    }

    /// Ends the threads, or leaves them to the process's other apps.
    pub(crate) fn end(&mut self, deadline: Instant) {
        let mut devices = self.devices.take_unshared();
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

/// A world that is torn down without an end of its app, or a service that is replaced.
impl Drop for LoaderService {
    fn drop(&mut self) {
        self.app = Lifeline::new();
        self.end(deadline_in(self.shutdown_timeout));
    }
}

impl FromWorld for LoaderService {
    fn from_world(world: &mut World) -> Self {
        let plugin = CandlePlugin::default();
        Self {
            app: Lifeline::new(),
            root: PathBuf::new(),
            shutdown_timeout: plugin.shutdown_timeout,
            readers: None,
            devices: Devices::new(&plugin),
            rest: world.get_resource_or_init::<Rest>().clone(),
        }
    }
}

/// How long idle threads have to end.
const GRACE: Duration = Duration::from_millis(200);

/// Weights are converted to floats only.
fn runnable(dtype: DType) -> Result<DType, LoadError> {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(dtype),
        _ => Err(LoadError::UnsupportedRunDtype {
            dtype,
            expected: "choose F32, F16, BF16 or F64".into(),
        }),
    }
}
