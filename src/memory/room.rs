//! Whether there is room: on a card, and in the system whatever the budget says.

#[cfg(feature = "cuda")]
use candle_core::Device;

use super::cpu::{Physical, physical};
#[cfg(feature = "cuda")]
use super::release::card;
use crate::LoadError;

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
    physical().map_or(Ok(()), |memory| fits(needed, releasable, memory))
}

fn fits(needed: u64, releasable: u64, memory: Physical) -> Result<(), LoadError> {
    let available = memory.available.saturating_add(releasable);
    if needed > available {
        return Err(LoadError::NotEnoughMemory { needed, available });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

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
}
