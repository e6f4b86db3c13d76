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
//!
//! All of this only holds places in glibc's heap: no page of it is touched but for a few headers, and nobody else's
//! allocator hears of it. A batch of very many tiny tensors may not fit in its stretch; what does not is given back
//! when the thread's heap has the next one behind it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use glibc::Placeholder;
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
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    start: Option<Placeholder>,
    /// What has huge pages.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    huge: Option<Range<usize>>,
}

/// Lies behind the blocks of a stretch, and has their memory given back by the next trim after they are dropped.
#[derive(Default)]
pub(crate) struct StretchEnd {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    _placeholder: Option<Placeholder>,
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Stretch {
    /// Takes room for so many blocks, of so many bytes together, in huge pages or in small ones. The end is to live as
    /// long as the blocks.
    pub(crate) fn take(bytes: u64, blocks: usize, huge: bool) -> (Self, StretchEnd) {
        let Some(mut start) = glibc::room(bytes, blocks) else {
            return Default::default();
        };
        let addresses = start.addresses();
        if huge {
            advise(addresses.clone(), libc::MADV_HUGEPAGE);
        }
        let end = glibc::behind(&addresses);
        start.shrink_to(1);
        let stretch = Self {
            start: Some(start),
            huge: huge.then_some(addresses),
        };
        (stretch, StretchEnd { _placeholder: end })
    }

    /// Lets its blocks have the first bytes, too: all are taken.
    pub(crate) fn close(&mut self) {
        self.start = None;
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
impl Stretch {
    pub(crate) fn take(_: u64, _: usize, _: bool) -> (Self, StretchEnd) {
        Default::default()
    }

    #[expect(clippy::unused_self, reason = "only glibc has stretches")]
    pub(crate) fn close(&mut self) {}
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Drop for Stretch {
    fn drop(&mut self) {
        if let Some(addresses) = self.huge.take() {
            advise(addresses, libc::MADV_NOHUGEPAGE);
        }
    }
}

impl StretchEnd {
    /// The same for what is free now at the end of the calling thread's heap, up to 32 MiB.
    pub(crate) fn of_this_heap() -> Self {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            let free = glibc::room(MAPPED as u64, 1);
            let _placeholder = free.and_then(|free| glibc::behind(&free.addresses()));
            Self { _placeholder }
        }
        #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
        Self::default()
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::{hint::black_box, ops::Range, ptr::NonNull};

    use super::MAPPED;
    use crate::memory::cpu::LARGE;

    /// What a block takes beside its bytes, at most: its header and its alignment.
    const BESIDE: usize = 32;

    /// What else the thread may allocate while it takes its blocks: the list of ends grows.
    const ASIDE: usize = 8 << 10;

    /// The size of an end: not kept in a thread's cache when it is freed.
    const END: usize = 4 << 10;

    /// A block of the heap in which nothing is ever written.
    pub(super) struct Placeholder {
        address: NonNull<libc::c_void>,
        bytes: usize,
    }

    #[expect(unsafe_code, reason = "the block is not of this thread")]
    // SAFETY: blocks of `malloc` may be freed on any thread, and nothing is in this one.
    unsafe impl Send for Placeholder {}

    impl Placeholder {
        fn take(bytes: usize) -> Option<Self> {
            #[expect(
                unsafe_code,
                reason = "this very heap is wanted, whatever allocator the game has"
            )]
            // SAFETY: `malloc` takes any number of bytes.
            let address = unsafe { libc::malloc(bytes) };
            // A block in which nothing is written would be optimized away.
            let address = NonNull::new(black_box(address))?;
            Some(Self { address, bytes })
        }

        pub(super) fn addresses(&self) -> Range<usize> {
            let first = self.address.addr().get();
            first..first + self.bytes
        }

        /// Gives all but its first bytes back.
        pub(super) fn shrink_to(&mut self, bytes: usize) {
            #[expect(unsafe_code, reason = "as it was taken")]
            // SAFETY: the block came from `malloc`, is alive, and is this value's alone; it is replaced by what is
            // returned, and left alone where that is nothing.
            let shrunk = unsafe { libc::realloc(self.address.as_ptr(), bytes) };
            if let Some(address) = NonNull::new(shrunk) {
                self.address = address;
                self.bytes = bytes;
            }
        }
    }

    impl Drop for Placeholder {
        fn drop(&mut self) {
            #[expect(unsafe_code, reason = "as it was taken")]
            // SAFETY: the block came from `malloc` or `realloc`, and this value is its only owner.
            unsafe {
                libc::free(self.address.as_ptr());
            }
        }
    }

    /// Room for so many blocks of so many bytes together, in a heap. What is small needs none, and what is larger is
    /// mapped.
    pub(super) fn room(bytes: u64, blocks: usize) -> Option<Placeholder> {
        if bytes < LARGE as u64 || bytes > MAPPED as u64 {
            return None;
        }
        // Less than what is always mapped.
        let bytes = bytes as usize + (blocks + 1) * BESIDE + ASIDE;
        let bytes = bytes.min(MAPPED - (64 << 10));
        drop(Placeholder::take(bytes));
        Placeholder::take(bytes)
    }

    /// A block behind others, where the rest of the heap is there. What fits into free places elsewhere goes there first;
    /// a block of the others' size fits into none, or they would be there.
    pub(super) fn behind(others: &Range<usize>) -> Option<Placeholder> {
        let mut elsewhere = Vec::new();
        let mut bytes = END;
        loop {
            let mut placeholder = Placeholder::take(bytes)?;
            let distance = placeholder.addresses().start.checked_sub(others.end);
            if distance.is_some_and(|bytes| bytes < END) {
                placeholder.shrink_to(END);
                return Some(placeholder);
            }
            if bytes >= others.len() {
                return None;
            }
            elsewhere.push(placeholder);
            bytes = (2 * bytes).min(others.len());
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::memory::cpu::{LARGE, trim};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_stretch_is_given_back_but_for_its_first_bytes_and_has_an_end() {
        for bytes in [LARGE as u64, 8 * MIB, MAPPED as u64] {
            let (stretch, end) = Stretch::take(bytes, 1, true);
            let start = stretch.start.as_ref().map(Placeholder::addresses);
            assert!(start.is_some_and(|start| start.len() == 1), "{bytes}");
            assert!(end._placeholder.is_some(), "no end behind {bytes} bytes");
        }
    }

    #[test]
    fn a_batch_that_is_small_or_mapped_anyway_needs_no_stretch() {
        for bytes in [0, LARGE as u64 - 1, MAPPED as u64 + 1, u64::MAX] {
            assert!(Stretch::take(bytes, 1, true).0.start.is_none(), "{bytes}");
        }
    }

    /// How many of the whole pages of these bytes are in memory.
    fn pages(bytes: &Range<usize>) -> usize {
        let (first, end) = (bytes.start.next_multiple_of(4096), bytes.end / 4096 * 4096);
        let mut there = vec![0_u8; (end - first) / 4096];
        let first = std::ptr::without_provenance_mut(first);
        #[expect(unsafe_code, reason = "`mincore` has no safe wrapper")]
        // SAFETY: it reads no memory but the system's tables, and writes a byte for each page that it is asked for.
        let asked = unsafe { libc::mincore(first, 4096 * there.len(), there.as_mut_ptr()) };
        assert_eq!(asked, 0, "the range is mapped");
        there.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn the_blocks_of_a_stretch_lie_before_its_end_and_come_back_with_a_trim() {
        let check = |huge| {
            let mut blocks = black_box(Vec::with_capacity(8));
            let (mut stretch, end) = Stretch::take(4 * MIB, 8, huge);
            blocks.extend((0..8).map(|_| vec![1_u8; 1 << 19]));
            stretch.close();
            drop(stretch);
            let end_at = end._placeholder.as_ref().expect("an end").addresses().start;
            let addresses = blocks.iter().map(|block| block.as_ptr().addr());
            let first = addresses.clone().min().expect("blocks");
            assert!(addresses.max() < Some(end_at), "a block behind the end");
            let whole = first..end_at;
            let full = pages(&whole);
            drop(blocks);
            trim();
            let left = pages(&whole);
            assert!(full > 1000 && left < 10, "{full} pages, then {left}");
        };
        for huge in [false, true] {
            // On a thread of its own, whose heap is another than the first one.
            let checked = std::thread::spawn(move || check(huge)).join();
            checked.expect("a check that passes");
        }
    }
}
