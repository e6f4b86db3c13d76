//! A counting allocator: who allocates large blocks, how many are alive, and who frees them.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    array,
    cell::Cell,
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
};

/// Blocks from this size on are counted.
pub const LARGE: usize = 64 << 10;

/// Blocks from this size on are told apart by their sizes: whole pages.
pub const PAGE: usize = 4 << 10;

/// Counts, and leaves the work to the system's allocator.
pub struct Counting;

/// Bytes in large blocks that are alive.
static LARGE_BYTES: AtomicI64 = AtomicI64::new(0);

/// The most there were since [`begin_peak`].
static PEAK: AtomicI64 = AtomicI64::new(0);

/// Bytes in all blocks that are alive.
static ALL_BYTES: AtomicI64 = AtomicI64::new(0);

/// Bytes in blocks of a page or more that are alive.
static PAGE_BYTES: AtomicI64 = AtomicI64::new(0);

/// Blocks of a page or more that are alive, by the power of two that they reach.
static PAGE_BLOCKS: [AtomicI64; 64] = [const { AtomicI64::new(0) }; 64];

/// Large blocks freed by threads that said they watch themselves.
static FREED_BY_WATCHED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Counts the large blocks that the calling thread frees from now on.
pub fn watch_this_thread() {
    WATCHED.set(true);
}

/// Returns the large blocks freed by watched threads.
pub fn freed_by_watched_threads() -> u64 {
    FREED_BY_WATCHED.load(SeqCst)
}

/// Returns the bytes in large blocks that are alive.
pub fn large_bytes() -> i64 {
    LARGE_BYTES.load(SeqCst)
}

/// Returns the bytes in all blocks that are alive, small ones included.
pub fn all_bytes() -> i64 {
    ALL_BYTES.load(SeqCst)
}

/// Starts to look for the peak, and returns the bytes that there are.
pub fn begin_peak() -> i64 {
    let now = large_bytes();
    PEAK.store(now, SeqCst);
    now
}

/// Returns the most bytes in large blocks that were alive at once: looked at in each allocation.
pub fn peak() -> i64 {
    PEAK.load(SeqCst)
}

/// All blocks of a page or more that are alive at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub bytes: i64,
    blocks: [i64; 64],
}

/// Returns the blocks of a page or more that are alive.
pub fn held() -> Held {
    Held {
        bytes: PAGE_BYTES.load(SeqCst),
        blocks: array::from_fn(|power| PAGE_BLOCKS[power].load(SeqCst)),
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        let blocks = self.blocks.iter().enumerate();
        for (power, count) in blocks.filter(|(_, count)| **count != 0) {
            write!(f, ", {count} from {} KiB", (1_u64 << power) >> 10)?;
        }
        Ok(())
    }
}

fn count_page(size: usize, sign: i64) {
    if size >= PAGE {
        PAGE_BYTES.fetch_add(sign * size as i64, SeqCst);
        PAGE_BLOCKS[size.ilog2() as usize].fetch_add(sign, SeqCst);
    }
}

fn count(size: usize, sign: i64) {
    ALL_BYTES.fetch_add(sign * size as i64, SeqCst);
    count_page(size, sign);
    if size >= LARGE {
        let change = sign * size as i64;
        let now = LARGE_BYTES.fetch_add(change, SeqCst) + change;
        PEAK.fetch_max(now, SeqCst);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every method forwards to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        if layout.size() >= LARGE && WATCHED.try_with(Cell::get).unwrap_or(false) {
            FREED_BY_WATCHED.fetch_add(1, SeqCst);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
