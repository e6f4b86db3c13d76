//! The default budget of a device, measured when it is opened.

use candle_core::Device;

use super::{
    cpu::{Physical, physical},
    release::card,
};

/// Half of the memory, or 80 % of what is available, whichever is less; on a card of its own what is free
/// there, less 1 GiB or 15 %, whichever is more: the renderer uses it too. Metal shares the memory of the
/// CPU. [`None`] where nothing can be measured.
pub(crate) fn default_budget(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu | Device::Metal(_) => of_host(physical()?),
        Device::Cuda(_) => card(device).map(|card| of_card(card.available())),
    }
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
    fn this_machine_has_a_budget_below_its_memory() {
        let memory = physical().expect("a system with memory");
        let budget = default_budget(&Device::Cpu).expect("a budget");
        assert!(0 < budget && budget <= memory.total / 2, "{memory:?}");
    }
}
