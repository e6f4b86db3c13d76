//! Memory for the tensors of a batch, from one stretch of the C library's heap.
//!
//! A block that glibc maps by itself begins with a page that is touched at once, which keeps the system from joining it to
//! its neighbours: of blocks of 2 MiB hardly one then has room for a huge page. It maps what is larger than any such
//! block that was freed, so a stretch is taken and freed for that. Then it is taken as one block and given back but for
//! its first bytes, which keep it in its place: blocks that are taken from it find pages that are huge already.
//!
//! What is free at the end of a thread's heap glibc keeps, up to 64 MiB for each thread, and its `malloc_trim` only looks
//! at what lies before blocks in use. So a small block is left behind each stretch, until the model is gone and the
//! heap trimmed. And when a stretch is full, what is not touched yet has small pages again: later a few bytes there would
//! take a huge one, and keep it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::ops::Range;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::cpu::advise;

/// The C library maps larger blocks one by one, whatever it has learned; it takes the others from its heaps.
pub(crate) const MAPPED: usize = 32 << 20;

/// A stretch of the heap, for the blocks of a batch, until they are full. Other systems have none.
#[derive(Default)]
pub(crate) struct Stretch {
    /// Keeps what follows it free.
    start: Vec<u8>,
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    addresses: Option<Range<usize>>,
}

/// Lies behind the blocks of a stretch, and has their memory given back by the next trim after they are dropped.
#[derive(Default)]
pub(crate) struct StretchEnd {
    _block: Vec<u8>,
}

impl StretchEnd {
    /// The same for what is free now at the end of the calling thread's heap, up to about so many bytes.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    pub(crate) fn of_this_heap(bytes: u64) -> Self {
        glibc::end_of_heap(bytes)
    }

    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    pub(crate) fn of_this_heap(_: u64) -> Self {
        Self::default()
    }
}

impl Stretch {
    /// Takes room for so many blocks, of so many bytes together, in huge pages or in small ones. The end is to live as
    /// long as the blocks.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    pub(crate) fn take(bytes: u64, blocks: usize, huge: bool) -> (Self, StretchEnd) {
        glibc::take(bytes, blocks, huge)
    }

    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    pub(crate) fn take(_: u64, _: usize, _: bool) -> (Self, StretchEnd) {
        Default::default()
    }

    /// Says that all blocks are taken.
    pub(crate) fn is_taken(&mut self) {
        self.start = Vec::new();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Drop for Stretch {
    fn drop(&mut self) {
        if let Some(addresses) = self.addresses.take() {
            advise(addresses, libc::MADV_NOHUGEPAGE);
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::{hint::black_box, ops::Range};

    use super::{MAPPED, Stretch, StretchEnd};
    use crate::memory::cpu::{LARGE, prefer_huge_pages};

    /// What a block takes beside its bytes, at most: its header and its alignment.
    const BESIDE: usize = 32;

    /// The size of an end: not kept in a thread's cache when it is freed.
    const END: usize = 4 << 10;

    /// What a small model may use while it works.
    const AT_WORK: u64 = 8 << 20;

    pub(super) fn take(bytes: u64, blocks: usize, huge: bool) -> (Stretch, StretchEnd) {
        if bytes < LARGE as u64 || bytes > MAPPED as u64 {
            return Default::default();
        }
        let mut start = from_heap(bytes as usize + (blocks + 1) * BESIDE);
        if huge {
            prefer_huge_pages(&mut start);
        }
        let addresses = addresses(&start);
        let end = end_behind(&addresses);
        start.shrink_to(1);
        let addresses = huge.then_some(addresses);
        (Stretch { start, addresses }, end)
    }

    pub(super) fn end_of_heap(bytes: u64) -> StretchEnd {
        let free = from_heap(bytes.clamp(AT_WORK, MAPPED as u64) as usize);
        end_behind(&addresses(&free))
    }

    /// A block that is not mapped by itself.
    fn from_heap(bytes: usize) -> Vec<u8> {
        let bytes = bytes.min(MAPPED - (64 << 10));
        drop(black_box(reserve(bytes)));
        reserve(bytes)
    }

    fn addresses(block: &Vec<u8>) -> Range<usize> {
        let first = block.as_ptr().addr();
        first..first + block.capacity()
    }

    fn reserve(bytes: usize) -> Vec<u8> {
        let mut block = Vec::new();
        // A stretch is a help and no need: where there is none, the blocks are refused by themselves.
        let _ = block.try_reserve_exact(bytes);
        block
    }

    /// A block behind a stretch of so many bytes, where the rest of the heap is there. What fits into free places
    /// elsewhere goes there first; a block of the stretch's own size fits into none, or the stretch would be there.
    fn end_behind(stretch: &Range<usize>) -> StretchEnd {
        let mut elsewhere = Vec::new();
        for bytes in [END, 64 << 10, 1 << 20, stretch.len()] {
            let mut block = reserve(bytes);
            let distance = block.as_ptr().addr().checked_sub(stretch.end);
            if distance.is_some_and(|bytes| bytes < END) {
                block.shrink_to(END);
                return StretchEnd { _block: block };
            }
            elsewhere.push(block);
        }
        StretchEnd::default()
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use crate::memory::cpu::{LARGE, resident, trim};

    #[test]
    fn a_stretch_is_given_back_but_for_its_first_bytes_and_has_an_end() {
        for bytes in [LARGE as u64, 8 << 20, MAPPED as u64] {
            let (stretch, end) = Stretch::take(bytes, 1, true);
            let (start, end) = (stretch.start.capacity(), end._block.capacity());
            assert!((1..4096).contains(&start), "{start} bytes of {bytes}");
            assert!(end >= 4096, "no end behind {bytes} bytes");
        }
    }

    #[test]
    fn a_batch_that_is_small_or_mapped_anyway_needs_no_stretch() {
        for bytes in [0, LARGE as u64 - 1, MAPPED as u64 + 1, u64::MAX] {
            let (stretch, _) = Stretch::take(bytes, 1, true);
            assert_eq!(stretch.start.capacity(), 0, "{bytes}");
        }
    }

    #[test]
    fn the_blocks_of_a_stretch_lie_before_its_end_and_come_back_with_a_trim() {
        let check = |huge| {
            let (stretch, end) = Stretch::take(24 << 20, 8, huge);
            let blocks: Vec<Vec<u8>> = (0..8).map(|_| vec![1; 3 << 20]).collect();
            drop(stretch);
            let before = |block: &Vec<u8>| block.as_ptr() < end._block.as_ptr();
            assert!(blocks.iter().all(before), "a block behind the end");
            let full = resident().expect("the system counts");
            drop(blocks);
            trim();
            let empty = resident().expect("the system counts");
            assert!(full - empty > 20 << 20, "{full} bytes, then {empty}");
        };
        for huge in [false, true] {
            // On a thread of its own, whose heap is another than the first one.
            let checked = std::thread::spawn(move || check(huge)).join();
            checked.expect("a check that passes");
        }
    }
}
