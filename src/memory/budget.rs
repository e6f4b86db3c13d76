//! The default budget of a device, measured when it is opened.

use candle_core::Device;

use super::release::card;
use crate::LoadError;

/// Half of the memory, or 80 % of what is available, whichever is less; on a card of its own what is free
/// there, less 1 GiB or 15 %, whichever is more: the renderer uses it too. Metal shares the memory of the
/// CPU. [`None`] where nothing can be measured.
pub(crate) fn default_budget(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu | Device::Metal(_) => of_host(super::cpu::physical()?),
        Device::Cuda(_) => card(device).map(|card| of_card(card.available())),
    }
}

/// Bytes that a card can still give. On the device thread.
#[cfg(feature = "cuda")]
pub(crate) fn free_bytes(device: &Device) -> u64 {
    card(device).map_or(0, |card| card.available())
}

/// Refuses what a card has no room for: its driver may give out more, and take it from the renderer. On the device thread.
#[cfg(feature = "cuda")]
pub(crate) fn ensure_free(needed: u64, device: &Device) -> Result<(), LoadError> {
    match card(device).map(|card| card.available()) {
        Some(free) if free < needed => Err(LoadError::DeviceOutOfMemory { needed, free }),
        _ => Ok(()),
    }
}

/// Models below this size are loaded without a look at what is left: a game takes as much in a moment.
const SMALL: u64 = 16 << 20;

/// Whether a model is so large that the system is asked first.
pub(crate) fn is_worth_a_look(needed: u64) -> bool {
    needed >= SMALL
}

/// Refuses what the system cannot give any more, `releasable` bytes of other models included. It would hand out the
/// memory all the same, and end the process when it is used. Reads files of the system: on a reader.
pub(crate) fn ensure_available(needed: u64, releasable: u64) -> Result<(), LoadError> {
    // A platform that cannot say what it has has no limit.
    super::cpu::physical().map_or(Ok(()), |memory| fits(needed, releasable, memory))
}

fn fits(needed: u64, releasable: u64, memory: Physical) -> Result<(), LoadError> {
    let available = memory.available.saturating_add(releasable);
    if needed > available {
        return Err(LoadError::NotEnoughMemory { needed, available });
    }
    Ok(())
}

/// Bytes of memory that the process may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical {
    pub(super) total: u64,
    pub(super) available: u64,
}

fn of_host(memory: Physical) -> Option<u64> {
    let budget = (memory.total / 2).min(memory.available / 5 * 4);
    (memory.total > 0).then_some(budget)
}

fn of_card(free: u64) -> u64 {
    free.saturating_sub((1 << 30).max(free / 20 * 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_game_keeps_half_of_the_memory_and_a_fifth_of_what_is_available() {
        let of = |total, available| of_host(Physical { total, available });
        assert_eq!(of(16 * GIB, 15 * GIB), Some(8 * GIB));
        assert_eq!(of(16 * GIB, 5 * GIB), Some(4 * GIB));
        assert_eq!(
            of(16 * GIB, 0),
            Some(0),
            "nothing available is no limit of none"
        );
        assert_eq!(of(0, 0), None, "what cannot be measured is no budget");
    }

    #[test]
    fn the_renderer_keeps_a_gibibyte_or_15_percent_of_a_card() {
        assert_eq!(of_card(4 * GIB), 3 * GIB);
        assert_eq!(of_card(20 * GIB), 17 * GIB);
        assert_eq!(of_card(GIB / 2), 0);
    }

    #[test]
    fn what_the_system_cannot_give_is_refused_and_the_last_byte_is_not() {
        let memory = Physical {
            total: 16 * GIB,
            available: GIB,
        };
        assert!(fits(GIB, 0, memory).is_ok());
        assert!(fits(2 * GIB, GIB, memory).is_ok());
        let refused = fits(GIB + 1, 0, memory);
        assert!(
            matches!(refused, Err(LoadError::NotEnoughMemory { needed, available })
                if (needed, available) == (GIB + 1, GIB))
        );
        assert!(!is_worth_a_look(SMALL - 1) && is_worth_a_look(SMALL));
        assert!(ensure_available(SMALL, 0).is_ok());
        assert!(ensure_available(u64::MAX, 0).is_err());
    }

    #[test]
    fn this_machine_has_a_budget_below_its_memory() {
        let memory = super::super::cpu::physical().expect("a system with memory");
        let budget = default_budget(&Device::Cpu).expect("a budget");
        assert!(0 < budget && budget <= memory.total / 2, "{memory:?}");
    }
}
