//! The device thread and its executor.

use std::{
    convert::Infallible,
    error::Error,
    mem::forget,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Mutex, OnceLock},
    thread::Builder,
    time::Duration,
};

use async_channel::{Receiver, Sender, bounded, unbounded};
use async_executor::LocalExecutor;
use bevy::platform::time::Instant;
use candle_core::Device;
use futures_lite::{FutureExt, future};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tracing::warn;

use super::{
    DeviceChoice, IS_DEVICE_THREAD, default_threads,
    health::{Broken, Health, Lent, unusable},
    timer::{block_on, wake_due},
};
use crate::{
    LoadError,
    lifeline::DrainOnDrop,
    memory::Ledger,
    panics::{drop_guarded, guarded, log_panic, panic_message},
    shared::Shared,
    threads::{COMPUTES, Threads, deadline_in},
};

/// All device threads of the process, one a device, for all its apps.
static OPEN: Shared<DeviceChoice, DeviceThread> = Shared::new();

/// What runs on the device thread.
type Command = Box<dyn FnOnce(&DeviceContext) + Send>;

/// What the device thread lends to the commands that run on it.
pub(crate) struct DeviceContext {
    /// What was asked for.
    pub(crate) choice: DeviceChoice,
    /// The device, or why it could not be opened.
    pub(crate) device: Result<Device, Arc<dyn Error + Send + Sync>>,
    /// Runs the futures of all models on this device, step by step.
    pub(crate) executor: Rc<LocalExecutor<'static>>,
    health: Rc<Health>,
}

impl DeviceContext {
    /// What a model gets of it, unless the device could not be opened.
    pub(crate) fn lend(&self) -> Result<Lent, Arc<dyn Error + Send + Sync>> {
        let device = self.device.clone()?;
        Ok(Lent::new(device, self.health.clone()))
    }

    /// Has the books of an app say so where the device is given up.
    pub(crate) fn show_in(&self, ledger: &Arc<Ledger>) {
        self.health.show_in(ledger);
    }

    #[cfg(feature = "test_kit")]
    pub(crate) fn lose(&self) {
        self.health.lose();
    }

    #[cfg(feature = "test_kit")]
    pub(crate) fn give_up(&self, reason: &str) {
        self.health.give_up(reason);
    }
}

/// Sends commands to a device thread. Clones may go anywhere; they do not keep the thread alive.
#[derive(Clone)]
pub(crate) struct DeviceHandle {
    commands: Sender<Command>,
    choice: DeviceChoice,
    broken: Broken,
}

impl DeviceHandle {
    /// Runs `command` on the device thread, soon. Where that has ended, the command is dropped unrun.
    pub(crate) fn run(&self, command: impl FnOnce(&DeviceContext) + Send + 'static) {
        let _ = self.commands.try_send(Box::new(command));
    }

    /// Why the device cannot be used any more, if so: it is not tried again.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.broken.get().map(|reason| &**reason)
    }

    /// The same, as the error of a load.
    pub(crate) fn unusable(&self) -> Option<LoadError> {
        Some(unusable(self.choice, self.given_up()?))
    }
}

/// The thread that owns a device, with the rayon pool that it belongs to.
pub(crate) struct DeviceThread {
    handle: DeviceHandle,
    stop: Option<Sender<Infallible>>,
    pool: Option<ThreadPool>,
    threads: Threads,
    shutdown_timeout: Duration,
}

impl DeviceThread {
    /// Returns the device's thread; the first app that asks starts it, with its own settings.
    pub(crate) fn shared(
        choice: DeviceChoice,
        threads: Option<NonZeroUsize>,
        shutdown_timeout: Duration,
    ) -> Result<Arc<Self>, LoadError> {
        let choice = choice.resolve();
        let start = || Self::start(choice, threads, shutdown_timeout);
        let stays = |thread: &Self| thread.is_running() || thread.handle.unusable().is_some();
        OPEN.get(choice, stays, Self::retire, start)
    }

    fn start(
        choice: DeviceChoice,
        workers: Option<NonZeroUsize>,
        shutdown_timeout: Duration,
    ) -> Result<Self, LoadError> {
        let mut threads = Threads::new();
        let pool = ThreadPoolBuilder::new()
            .num_threads(workers.unwrap_or_else(default_threads).get())
            .panic_handler(|panic| log_panic("a device thread", panic))
            .spawn_handler(|worker| {
                threads.spawn(
                    format!("candle-{choice}-{}", worker.index()),
                    COMPUTES,
                    || {
                        worker.run();
                    },
                )
            })
            .build()
            .map_err(|error| LoadError::Device {
                device: format!("{choice:?}"),
                source: error.into(),
            })?;
        let (commands, received) = unbounded();
        let (stop, stopped) = bounded(1);
        let broken = Arc::new(OnceLock::new());
        let health = broken.clone();
        pool.spawn(move || own_device(choice, health, DrainOnDrop(received), &stopped));
        Ok(Self {
            handle: DeviceHandle {
                commands,
                choice,
                broken,
            },
            stop: Some(stop),
            pool: Some(pool),
            threads,
            shutdown_timeout,
        })
    }

    pub(crate) fn handle(&self) -> DeviceHandle {
        self.handle.clone()
    }

    /// Lets go of a thread that has ended by itself. Its workers are joined on a thread of their own: one of them may
    /// hang, and nobody is to wait for it.
    pub(crate) fn retire(dead: Arc<Self>) {
        let dead = Arc::new(Mutex::new(Some(dead)));
        let taken = dead.clone();
        let take = |dead: &Mutex<Option<_>>| dead.lock().ok().and_then(|mut dead| dead.take());
        let join = move || drop(take(&taken));
        let name = "candle-retire".to_owned();
        if let Err(error) = Builder::new().name(name).spawn(join) {
            warn!("failed to start the thread that joins a lost device's: {error}");
            forget(take(&dead));
        }
    }

    /// Whether the thread has not ended by itself.
    pub(crate) fn is_running(&self) -> bool {
        !self.handle.commands.is_closed()
    }

    /// Asks the thread to end. What it still holds is dropped there.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
        self.pool = None;
    }

    /// Waits for the end, at most until the deadline.
    pub(crate) fn join(&mut self, deadline: Instant) {
        for name in self.threads.join(deadline) {
            warn!("the thread {name} did not end in time, and is left behind");
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop();
        self.join(deadline_in(self.shutdown_timeout));
    }
}

/// What the device thread does next.
enum Turn {
    Stop,
    Run(Command),
    /// One step of one model was taken.
    Stepped,
}

/// The life of the device thread: open the device, run commands and futures, drop what is left.
fn own_device(
    choice: DeviceChoice,
    broken: Broken,
    commands: DrainOnDrop<Command>,
    stopped: &Receiver<Infallible>,
) {
    IS_DEVICE_THREAD.set(true);
    let context = DeviceContext {
        choice,
        device: open(choice),
        executor: Rc::new(LocalExecutor::new()),
        health: Rc::new(Health::new(choice, broken)),
    };
    block_on(async {
        while !context.health.is_lost() {
            // A model that is always ready for its next step must not keep others asleep.
            wake_due();
            match next_turn(&context, &commands, stopped).await {
                Turn::Stop => break,
                Turn::Run(command) => {
                    guarded("a command of the device thread", || command(&context));
                }
                Turn::Stepped => {}
            }
        }
    });
    drop(commands);
    drop_guarded("what was left on the device thread", context);
    IS_DEVICE_THREAD.set(false);
}

/// Asked before every step, in this order: a busy model must not hold up the end, a load or a release.
async fn next_turn(
    context: &DeviceContext,
    commands: &DrainOnDrop<Command>,
    stopped: &Receiver<Infallible>,
) -> Turn {
    let stop = async {
        while stopped.recv().await.is_ok() {}
        Turn::Stop
    };
    let command = async {
        match commands.0.recv().await {
            Ok(command) => Turn::Run(command),
            Err(_) => future::pending().await,
        }
    };
    let step = async {
        // A pipeline's panics are caught where they belong to a load or a job; this is the net.
        let tick = AssertUnwindSafe(context.executor.tick()).catch_unwind();
        if let Err(panic) = tick.await {
            log_panic("a model", panic);
        }
        Turn::Stepped
    };
    future::or(stop, future::or(command, step)).await
}

/// Drivers have been seen to panic where a device is missing.
fn open(choice: DeviceChoice) -> Result<Device, Arc<dyn Error + Send + Sync>> {
    let opened = catch_unwind(AssertUnwindSafe(|| choice.open()));
    match opened {
        Ok(device) => device.map_err(|error| Arc::new(error) as _),
        Err(panic) => {
            let error: Box<dyn Error + Send + Sync> = panic_message(panic).into();
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::on_device_thread;

    fn thread() -> DeviceThread {
        DeviceThread::start(
            DeviceChoice::Cpu,
            NonZeroUsize::new(2),
            Duration::from_secs(10),
        )
        .expect("a thread")
    }

    fn soon() -> Instant {
        deadline_in(Duration::from_secs(10))
    }

    #[test]
    fn commands_run_on_one_thread_which_owns_the_device() {
        let device = thread();
        let (tx, rx) = crossbeam_channel::unbounded();
        for _ in 0..10 {
            let tx = tx.clone();
            device
                .handle()
                .run(move |_| _ = tx.send((std::thread::current().id(), on_device_thread())));
        }
        let seen: Vec<_> = (0..10)
            .map(|_| rx.recv_deadline(soon()).expect("an answer"))
            .collect();
        assert!(seen.iter().all(|one| *one == (seen[0].0, true)), "{seen:?}");
    }

    #[test]
    fn parallel_work_stays_in_the_pool_of_the_device() {
        let device = thread();
        let (tx, rx) = crossbeam_channel::unbounded();
        device.handle().run(move |_| {
            let names = rayon::broadcast(|_| std::thread::current().name().map(str::to_owned));
            let _ = tx.send(names);
        });
        let mut names: Vec<_> = rx
            .recv_deadline(soon())
            .expect("names")
            .into_iter()
            .flatten()
            .collect();
        names.sort();
        assert_eq!(names, ["candle-cpu-0", "candle-cpu-1"]);
    }

    #[test]
    fn a_command_that_panics_leaves_the_thread_alive() {
        let device = thread();
        let (tx, rx) = crossbeam_channel::unbounded();
        device.handle().run(|_| panic!("on purpose"));
        device.handle().run(move |_| _ = tx.send(()));
        rx.recv_deadline(soon()).expect("the next command runs");
    }

    #[test]
    fn a_panic_that_panics_when_it_is_dropped_leaves_the_thread_alive() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose, again");
            }
        }
        let device = thread();
        let (tx, rx) = crossbeam_channel::unbounded();
        device.handle().run(|_| std::panic::panic_any(Bomb));
        device.handle().run(move |_| _ = tx.send(()));
        rx.recv_deadline(soon()).expect("the next command runs");
        assert!(device.is_running());
    }

    #[test]
    fn what_is_left_at_the_end_is_dropped_on_the_thread() {
        struct Tell(crossbeam_channel::Sender<bool>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.send(on_device_thread());
            }
        }
        let mut device = thread();
        let (tx, rx) = crossbeam_channel::unbounded();
        let in_future = Tell(tx.clone());
        device.handle().run(move |context| {
            let forever = async move {
                let _kept = in_future;
                future::pending::<()>().await;
            };
            context.executor.spawn(forever).detach();
        });
        device.stop();
        device.join(soon());
        assert_eq!(rx.try_recv(), Ok(true));
        let late = Tell(tx);
        device.handle().run(move |_| drop(late));
        assert_eq!(
            rx.try_recv(),
            Ok(false),
            "after the end a command is dropped by its sender"
        );
    }
}
