//! [`Devices`]: the threads of the devices that an app uses, and what its books learn from them.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

#[cfg(feature = "test_kit")]
use crate::device::DeviceContext;
use crate::{
    CandlePlugin, DeviceChoice, ErrorChain, LoadError, ResourceManager,
    device::{DeviceHandle, DeviceThread},
    memory::{Ledger, default_budget},
};

/// The device threads that an app uses. Other apps of the process may use them too.
pub(super) struct Devices {
    /// Where models run whose manager has no device for itself.
    default: DeviceChoice,
    /// Devices that managers have for themselves, until they are opened with the app.
    others: Vec<DeviceChoice>,
    workers: Option<NonZeroUsize>,
    shutdown_timeout: Duration,
    running: Vec<(DeviceChoice, Arc<DeviceThread>)>,
}

impl Devices {
    pub(super) fn new(plugin: &CandlePlugin) -> Self {
        Self {
            default: DeviceChoice::Cpu,
            others: Vec::new(),
            workers: plugin.threads,
            shutdown_timeout: plugin.shutdown_timeout,
            running: Vec::new(),
        }
    }

    /// Takes the settings of the app.
    pub(super) fn configure(&mut self, plugin: &CandlePlugin) {
        self.default = plugin.device;
        self.workers = plugin.threads;
        self.shutdown_timeout = plugin.shutdown_timeout;
    }

    /// Has a device opened with the app.
    pub(super) fn add(&mut self, device: DeviceChoice) {
        self.others.push(device);
    }

    /// Starts the threads of all devices that are known by now.
    pub(super) fn open(&mut self, memory: &mut ResourceManager) -> Result<(), LoadError> {
        self.thread(self.default.resolve(), memory)?;
        for device in std::mem::take(&mut self.others) {
            self.thread(device.resolve(), memory)?;
        }
        Ok(())
    }

    /// The device of a manager: its own, or else the app's.
    pub(super) fn of(&self, own: Option<DeviceChoice>) -> DeviceChoice {
        own.unwrap_or(self.default).resolve()
    }

    /// Returns the thread of a device that can be used; starts it where none is running.
    pub(super) fn thread(
        &mut self,
        device: DeviceChoice,
        memory: &mut ResourceManager,
    ) -> Result<Arc<DeviceThread>, LoadError> {
        let mut known = self.running.iter();
        if let Some(known) = known.position(|(choice, _)| *choice == device) {
            usable(&self.running[known].1, &memory.ledger(device))?;
            if self.running[known].1.is_running() {
                return Ok(self.running[known].1.clone());
            }
            let (_, lost) = self.running.swap_remove(known);
            DeviceThread::retire(lost);
        }
        let thread = DeviceThread::shared(device, self.workers, self.shutdown_timeout)?;
        usable(&thread, &memory.ledger(device))?;
        learn(&thread, memory.ledger(device));
        self.running.push((device, thread.clone()));
        Ok(thread)
    }

    /// Lets go of all threads; returns those that no other app uses.
    pub(super) fn take_unshared(&mut self) -> Vec<DeviceThread> {
        let devices = self.running.drain(..).map(|(_, thread)| thread);
        devices.filter_map(Arc::into_inner).collect()
    }

    /// Has the threads end, as if the devices were gone.
    #[cfg(feature = "test_kit")]
    pub(super) fn lose(&self) {
        for (_, thread) in &self.running {
            thread.handle().run(DeviceContext::lose);
        }
    }

    /// Has the devices be given up, as if their drivers had failed for good.
    #[cfg(feature = "test_kit")]
    pub(super) fn give_up(&self, reason: &str) {
        for (_, thread) in &self.running {
            let reason = reason.to_owned();
            thread.handle().run(move |context| context.give_up(&reason));
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
