//! Giving memory back, and measuring what came back.

use std::time::{Duration, Instant};

use bevy::prelude::*;
use candle_core::Device;

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(feature = "metal")]
use super::metal;

/// What an unload or a cancelled load gave back, in bytes.
///
/// `freed` counts what the device's own counters say was given back between the moment before the
/// drop and the moment after it: the heap in use on the CPU (glibc only), the memory pool's used bytes
/// on CUDA, the allocated size on Metal. It is [`None`] where nothing counts. On the CPU the counter
/// is the process's, so what a game allocates in that moment is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct ReleaseReport {
    /// Bytes that the model had claimed on its device.
    pub claimed: u64,
    /// Bytes that the device gave back.
    pub freed: Option<u64>,
    /// Bytes of the whole process in physical memory before the release.
    pub resident_before: Option<u64>,
    /// Bytes of the whole process in physical memory after the release.
    pub resident_after: Option<u64>,
    /// From letting go to the last byte.
    pub duration: Duration,
}

/// What is in use at one moment. Taken on the device thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    in_use: Option<u64>,
    resident: Option<u64>,
}

impl Snapshot {
    pub(crate) fn take(device: &Device) -> Self {
        let in_use = match device {
            Device::Cpu => cpu::heap_in_use(),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::pool_in_use(device),
            #[cfg(feature = "metal")]
            Device::Metal(device) => Some(metal::allocated(device)),
            #[cfg(not(all(feature = "cuda", feature = "metal")))]
            _ => None,
        };
        Self {
            in_use,
            resident: cpu::resident(),
        }
    }
}

/// Waits for what the device still works on, so that a drop that follows frees at once.
pub(crate) fn settle(device: &Device) {
    if !device.is_cpu()
        && let Err(error) = device.synchronize()
    {
        tracing::warn!("failed to synchronize the device: {error}");
    }
}

/// Gives what was dropped back to the system. Runs on the device thread: it may take milliseconds.
fn give_back(device: &Device) {
    settle(device);
    match device {
        Device::Cpu => cpu::trim(),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::trim(device),
        _ => {}
    }
}

/// Trims, measures and reports, after the last tensor of a model was dropped.
pub(crate) fn report(
    device: &Device,
    claimed: u64,
    before: Option<Snapshot>,
    since: Option<Instant>,
) -> ReleaseReport {
    give_back(device);
    let after = Snapshot::take(device);
    let freed = before.and_then(|before| freed(claimed, before.in_use?, after.in_use?));
    ReleaseReport {
        claimed,
        freed,
        resident_before: before.and_then(|before| before.resident),
        resident_after: after.resident,
        duration: since.map(|since| since.elapsed()).unwrap_or_default(),
    }
}

/// The difference, unless the counter cannot have counted the model: a game with an allocator of its
/// own leaves the C library's counters near zero.
fn freed(claimed: u64, before: u64, after: u64) -> Option<u64> {
    (before >= claimed).then(|| before.saturating_sub(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_never_saw_the_model_says_nothing() {
        assert_eq!(freed(100, 150, 50), Some(100));
        assert_eq!(freed(100, 20, 10), None);
        assert_eq!(
            freed(100, 150, 160),
            Some(0),
            "the game allocated meanwhile"
        );
    }

    #[test]
    fn a_dropped_buffer_shows_in_the_report() {
        let bytes = 64 << 20;
        let buffer = vec![1_u8; bytes];
        let before = Snapshot::take(&Device::Cpu);
        drop(buffer);
        let report = report(&Device::Cpu, bytes as u64, Some(before), None);
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            let freed = report.freed.expect("glibc counts");
            assert!(freed > bytes as u64 / 2, "{freed} of {bytes}");
        }
    }
}
