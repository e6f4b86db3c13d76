//! [`DeviceChoice`], and the thread that owns a device.

use std::{
    cell::Cell,
    fmt,
    num::NonZeroUsize,
    panic::catch_unwind,
    sync::OnceLock,
    thread::{Builder, available_parallelism},
};

use bevy::prelude::*;
use candle_core::{Device, Tensor};
use tracing::warn;

#[cfg(any(feature = "cuda", test))]
mod fault;
mod health;
mod settle;
mod thread;
mod timer;
#[cfg(feature = "cuda")]
pub(crate) use fault::refuses_memory;
pub(crate) use health::{Lent, hear_of_others};
#[cfg(feature = "cuda")]
pub(crate) use settle::settle;
pub(crate) use thread::{DeviceContext, DeviceHandle, DeviceThread};
#[cfg(test)]
pub(crate) use timer::block_on;
pub(crate) use timer::sleep_until;

/// Whether models can be loaded on this platform.
pub(crate) const IS_SUPPORTED: bool = !cfg!(any(target_family = "wasm", target_os = "android"));

thread_local! {
    static IS_DEVICE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Where models run.
///
/// Everything that touches a device happens on one thread of ours, the device thread: opening it, building, running and
/// dropping models. For the CPU that thread belongs to a rayon pool of its own, so candle's matrix products never touch
/// the pool that belongs to the game. Only which devices there are is asked on the main thread, as the app starts, where the
/// choice is left to [`Auto`](Self::Auto); on Metal that opens a device and closes it again.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// # let mut app = App::new();
/// app.add_plugins(CandlePlugin { device: DeviceChoice::Cpu, ..default() });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// CUDA or Metal where compiled in and present, else the CPU. The choice is made once a process; a device that
    /// is present and cannot be opened is an error then.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number; needs the feature `cuda`.
    Cuda(usize),
    /// A Metal device by its number; needs the feature `metal`.
    Metal(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda{number}"),
            Self::Metal(number) => write!(f, "metal{number}"),
        }
    }
}

impl DeviceChoice {
    /// Returns whether models can run on the device: it is compiled in and there, and computes what it is asked. A card that
    /// is too old for the kernels, or whose driver is, does not. No device does on the web or on Android.
    ///
    /// That opens the device and closes it again, which takes a card a second or more, and a broken one may not answer at
    /// all. For a game that has not made its app yet: [`guide::gpu`](crate::guide::gpu) shows a launcher.
    ///
    /// ```
    /// use bevy_candle::DeviceChoice;
    ///
    /// assert!(DeviceChoice::Cpu.is_present() && DeviceChoice::Auto.is_present());
    /// ```
    pub fn is_present(self) -> bool {
        match self {
            Self::Auto => self.resolve().is_present(),
            Self::Cpu => IS_SUPPORTED,
            Self::Cuda(number) => number < cuda_devices() && self.computes(),
            Self::Metal(_) => self.computes(),
        }
    }

    /// Opens the device and tries it, on a thread of its own, which takes along what a driver keeps for a thread, and panics.
    fn computes(self) -> bool {
        let name = "candle-try".to_owned();
        let tried = Builder::new()
            .name(name)
            .spawn(move || try_out(&self.open()?));
        let tried = tried.map(std::thread::JoinHandle::join);
        matches!(tried, Ok(Ok(Ok(true))))
    }

    /// Replaces [`Auto`](Self::Auto) by a device that is there: one device must not have two names, or it would have
    /// two threads and two budgets.
    pub(crate) fn resolve(self) -> Self {
        static BEST: OnceLock<DeviceChoice> = OnceLock::new();
        match self {
            Self::Auto => *BEST.get_or_init(|| Self::best(|| cuda_devices() > 0, || has_metal(0))),
            other => other,
        }
    }

    fn best(has_cuda: fn() -> bool, has_metal: fn() -> bool) -> Self {
        if has_cuda() {
            Self::Cuda(0)
        } else if has_metal() {
            Self::Metal(0)
        } else {
            if cfg!(any(feature = "cuda", feature = "metal")) {
                warn!("no accelerator was found; the CPU is used instead");
            }
            Self::Cpu
        }
    }

    /// Opens the device, on the thread that will own it.
    fn open(self) -> candle_core::Result<Device> {
        match self.resolve() {
            // A stream of its own, and not the one that is another on each thread: `docs/gpu.md` says why.
            Self::Cuda(number) => Device::new_cuda_with_stream(number),
            Self::Metal(number) => Device::new_metal(number),
            Self::Cpu | Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// Runs a kernel; returns whether it computes what it should.
fn try_out(device: &Device) -> candle_core::Result<bool> {
    let values = Tensor::new(&[1_f32, 2.0, 3.0], device)?;
    Ok(values.affine(2.0, 1.0)?.to_vec1::<f32>()? == [3.0, 5.0, 7.0])
}

/// Asks the driver, without opening a device. Drivers have been seen to panic where there is none.
#[cfg(feature = "cuda")]
fn cuda_devices() -> usize {
    let count = catch_unwind(crate::memory::cuda_devices).unwrap_or_default();
    usize::try_from(count).unwrap_or_default()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> usize {
    0
}

/// candle panics where a machine has no such Metal device.
fn has_metal(number: usize) -> bool {
    cfg!(feature = "metal")
        && catch_unwind(|| Device::new_metal(number)).is_ok_and(|device| device.is_ok())
}

/// Returns whether the calling thread owns a device: the only place where models are built, used and
/// dropped.
#[cfg(any(test, feature = "test_kit"))]
pub fn on_device_thread() -> bool {
    IS_DEVICE_THREAD.get()
}

/// The threads of the CPU device where the game does not say: all cores but one, at least one.
fn default_threads() -> NonZeroUsize {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_compiled_in_is_an_error() {
        if cfg!(not(feature = "cuda")) {
            assert!(
                DeviceChoice::Cuda(0).open().is_err(),
                "no CUDA is compiled in"
            );
        }
    }

    #[test]
    fn only_what_is_compiled_in_is_present() {
        assert!(DeviceChoice::Cpu.is_present());
        assert!(!DeviceChoice::Cuda(usize::MAX).is_present());
        if cfg!(not(feature = "metal")) {
            assert!(!DeviceChoice::Metal(0).is_present());
        }
    }

    #[test]
    fn what_is_present_computes() {
        assert!(try_out(&Device::Cpu).expect("no error"));
        assert!(DeviceChoice::Cpu.computes());
        if cfg!(not(feature = "cuda")) {
            assert!(!DeviceChoice::Cuda(0).computes());
        }
    }

    #[test]
    fn auto_is_always_a_device_by_its_own_name() {
        assert_ne!(DeviceChoice::Auto.resolve(), DeviceChoice::Auto);
        let best = DeviceChoice::best;
        assert_eq!(best(|| true, || true), DeviceChoice::Cuda(0));
        assert_eq!(best(|| false, || true), DeviceChoice::Metal(0));
        assert_eq!(best(|| false, || false), DeviceChoice::Cpu);
    }

    #[test]
    fn the_default_leaves_a_core_to_the_game() {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        assert_eq!(default_threads().get(), (cores - 1).max(1));
    }
}
