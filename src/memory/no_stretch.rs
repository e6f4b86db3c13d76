//! C libraries other than glibc place blocks as they like, and give them back by themselves.

use std::{collections::LinkedList, ops::Range};

/// The C library's, where it is glibc; elsewhere only the size of the largest batch.
pub(crate) const MAPPED: usize = (32 << 20) - (64 << 10);

/// No block is small.
pub(crate) const SMALL: usize = 0;

/// Blocks lie anywhere.
pub(crate) struct Stretch(());

impl Stretch {
    pub(crate) fn take(_: u64, _: usize, _: bool, _: impl Fn() -> bool) -> Self {
        Self(())
    }

    #[expect(clippy::unused_self, reason = "only glibc has stretches")]
    pub(crate) fn close(&mut self, _: impl Iterator<Item = Range<usize>>) -> Footprint {
        Footprint(())
    }
}

pub(crate) fn clear_this_heap(_: impl Fn()) {}

pub(crate) fn clear_idle_heap() {}

pub(crate) fn take_places(_: &mut LinkedList<Footprint>) -> u64 {
    0
}

/// Nobody keeps places.
pub(super) fn without_places(count: impl Fn() -> Option<u64>, _: impl Fn() -> bool) -> Option<u64> {
    count()
}

/// Nothing is known about where blocks lie.
pub(crate) struct Footprint(());

impl Footprint {
    pub(crate) fn of_this_heap() -> Vec<Self> {
        Vec::new()
    }

    #[expect(clippy::unused_self, reason = "only glibc has stretches")]
    pub(crate) fn give_back(self, _: impl Fn()) -> u64 {
        0
    }
}
