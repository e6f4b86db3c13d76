//! An allocator that knows when the last large block of a load was freed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Blocks from this size on are counted.
const LARGE: usize = 64 << 10;

/// Counts, and leaves the work to the system's allocator.
pub struct Watching;

/// Bytes in large blocks that are alive.
static ALIVE: AtomicI64 = AtomicI64::new(0);

/// When a large block was freed last, in nanoseconds after [`START`].
static LAST_FREE: AtomicU64 = AtomicU64::new(0);

static START: OnceLock<Instant> = OnceLock::new();

/// Starts the clock. The allocator does not count times before.
pub fn start_clock() {
    START.get_or_init(Instant::now);
}

/// Returns the bytes in large blocks that are alive.
pub fn alive() -> i64 {
    ALIVE.load(SeqCst)
}

/// Returns how long after a moment the last large block was freed; nothing where none was.
pub fn last_free_after(moment: Instant) -> Duration {
    let start = *START.get().expect("the clock was started");
    let last = start + Duration::from_nanos(LAST_FREE.load(SeqCst));
    last.saturating_duration_since(moment)
}

fn count_free(size: usize) {
    if size >= LARGE {
        ALIVE.fetch_sub(size as i64, SeqCst);
        if let Some(start) = START.get() {
            LAST_FREE.store(start.elapsed().as_nanos() as u64, SeqCst);
        }
    }
}

fn count_new(size: usize) {
    if size >= LARGE {
        ALIVE.fetch_add(size as i64, SeqCst);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every method forwards to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_new(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_new(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_new(size);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(block, layout, size) };
        count_free(layout.size());
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) };
        // Afterwards: it counts when the memory is back.
        count_free(layout.size());
    }
}
