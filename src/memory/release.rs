//! Giving memory back, and measuring what came back.

use std::time::Duration;

use bevy::{platform::time::Instant, prelude::*};
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
/// on CUDA, the allocated size on Metal. It is [`None`] where nothing counts, or where that would hold the
/// game up: a heap with very many holes. On the CPU the counter is the process's, so what a game allocates in
/// that moment is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct ReleaseReport {
    /// Bytes that the model had claimed on its device.
    pub claimed: u64,
    /// Bytes that the device gave back.
    pub freed: Option<u64>,
    /// What a card says; only CUDA devices are cards with counters.
    pub card: Option<CardReport>,
    /// Bytes of the whole process in physical memory before the release.
    pub resident_before: Option<u64>,
    /// Bytes of the whole process in physical memory after the release.
    pub resident_after: Option<u64>,
    /// From letting go to the last byte.
    pub duration: Duration,
}

/// What a card says of its memory around a release, in bytes.
///
/// The pool's counters are those of the process: they prove what came back. What is free on the card is for information,
/// since the renderer and other programs use it, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct CardReport {
    /// What tensors used of the pool before the release; [`None`] on a device without a pool.
    pub used_before: Option<u64>,
    /// What tensors use of the pool after the release: those of other models.
    pub used_after: Option<u64>,
    /// What the pool had from the driver before the release.
    pub reserved_before: Option<u64>,
    /// What the pool has from the driver after it was trimmed.
    pub reserved_after: Option<u64>,
    /// What nobody used of the card before the release.
    pub free_before: u64,
    /// What nobody uses of the card after the release.
    pub free_after: u64,
    /// What stays in use beside the pool: the CUDA context, cuBLAS and the kernels that were loaded, which go with the
    /// process, and whatever the renderer and other programs hold.
    pub stays: u64,
}

/// What is in use at one moment. Taken on the device thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    in_use: Option<u64>,
    card: Option<Card>,
    resident: Option<u64>,
}

/// A card's figures at one moment. `used` and `reserved` are the pool's, where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Card {
    pub(super) used: Option<u64>,
    pub(super) reserved: Option<u64>,
    pub(super) free: u64,
    pub(super) total: u64,
}

impl Card {
    /// What a load can have: what nobody uses, and what the pool has and does not use.
    pub(super) fn available(&self) -> u64 {
        let idle = self.reserved.zip(self.used);
        let idle = idle.map_or(0, |(reserved, used)| reserved.saturating_sub(used));
        self.free.saturating_add(idle)
    }

    fn report(before: Self, after: Self) -> CardReport {
        let pool = after.reserved.unwrap_or_default();
        CardReport {
            used_before: before.used,
            used_after: after.used,
            reserved_before: before.reserved,
            reserved_after: after.reserved,
            free_before: before.free,
            free_after: after.free,
            stays: after.total.saturating_sub(after.free).saturating_sub(pool),
        }
    }
}

impl Snapshot {
    pub(crate) fn take(device: &Device) -> Self {
        let card = card(device);
        let in_use = match device {
            Device::Cpu => cpu::heap_in_use(),
            #[cfg(feature = "metal")]
            Device::Metal(device) => Some(metal::allocated(device)),
            _ => card.and_then(|card| card.used),
        };
        Self {
            in_use,
            card,
            resident: cpu::resident(),
        }
    }
}

/// The figures of a card, where the device is one. On the device thread.
pub(super) fn card(device: &Device) -> Option<Card> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::card(device),
        _ => None,
    }
}

/// Gives what was dropped on a card back to its driver. Runs on the device thread: it may take milliseconds.
#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "only CUDA devices have a pool")
)]
fn trim_pool(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        cuda::trim(device);
    }
}

/// Trims a card's pool, measures and reports, after the last tensor of a model was dropped, and the device has settled.
pub(crate) fn report(
    device: &Device,
    claimed: u64,
    before: Option<Snapshot>,
    since: Option<Instant>,
) -> ReleaseReport {
    trim_pool(device);
    let after = Snapshot::take(device);
    let freed = before.and_then(|before| freed(claimed, before.in_use?, after.in_use?));
    let card = before.and_then(|before| Some(Card::report(before.card?, after.card?)));
    ReleaseReport {
        claimed,
        freed,
        card,
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

    fn card(used: Option<u64>, reserved: Option<u64>, free: u64) -> Card {
        Card {
            used,
            reserved,
            free,
            total: 1000,
        }
    }

    #[test]
    fn a_card_says_what_came_back_and_what_stays() {
        let before = card(Some(300), Some(400), 450);
        let after = card(Some(100), Some(128), 722);
        assert_eq!(before.available(), 550, "idle blocks can be had, too");
        let expected = CardReport {
            used_before: Some(300),
            used_after: Some(100),
            reserved_before: Some(400),
            reserved_after: Some(128),
            free_before: 450,
            free_after: 722,
            stays: 150,
        };
        assert_eq!(Card::report(before, after), expected);
    }

    #[test]
    fn a_card_without_a_pool_says_what_is_free() {
        let report = Card::report(card(None, None, 600), card(None, None, 800));
        assert_eq!((report.used_after, report.reserved_after), (None, None));
        assert_eq!((report.free_before, report.free_after), (600, 800));
        assert_eq!(report.stays, 200);
        assert_eq!(card(None, None, 600).available(), 600);
    }
}
