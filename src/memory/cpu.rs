//! The CPU's memory: what the C library and the system say, and how to give it back.
//!
//! Each call of the operating system has a portable fallback.

#[cfg(target_os = "linux")]
use std::ops::Range;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::LazyLock;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};
use tracing::debug;

use super::stretch::without_places;
use crate::threads::cpu_time;

/// A huge page.
#[cfg(target_os = "linux")]
pub(super) const HUGE: usize = 2 << 20;

/// Smaller buffers are left alone: they come and go too often.
#[cfg(target_os = "linux")]
pub(super) const LARGE: usize = 256 << 10;

/// Bytes of memory that the process may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical {
    pub(super) total: u64,
    pub(super) available: u64,
}

/// The memory that this process may use: the machine's, or its container's where that has less.
pub(super) fn physical() -> Option<Physical> {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let kind = RefreshKind::nothing().with_memory(memory);
    let mut system = System::new_with_specifics(kind).ok()?;
    let machine = Physical {
        total: system.total_memory(),
        available: system.available_memory(),
    };
    let container = container(&mut system).unwrap_or(machine);
    (machine.total > 0).then_some(Physical {
        total: machine.total.min(container.total),
        available: machine.available.min(container.available),
    })
}

/// What the control groups of this process leave it; only Linux has them.
fn container(system: &mut System) -> Option<Physical> {
    let own = sysinfo::get_current_pid().ok()?;
    let (which, nothing) = (
        ProcessesToUpdate::Some(&[own]),
        ProcessRefreshKind::nothing(),
    );
    system.refresh_processes_specifics(which, true, nothing);
    let limits = system.process(own)?.cgroup_limits()?;
    Some(Physical {
        total: limits.total_memory,
        // What its files take in the cache is given back when memory is short.
        available: limits.total_memory.saturating_sub(limits.rss),
    })
}

/// Asks for huge pages for memory that was not touched yet: it is then filled in half the time, and freed in a
/// tenth, which keeps the device thread free for other models. A system that has none ignores it.
#[cfg(target_os = "linux")]
pub(crate) fn prefer_huge_pages<T>(buffer: &mut Vec<T>) {
    let bytes = buffer.capacity() * size_of::<T>();
    if bytes >= LARGE {
        let start = buffer.as_ptr().addr();
        advise(start..start + bytes, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn prefer_huge_pages<T>(_: &mut Vec<T>) {}

/// Says which pages memory shall have that is not touched yet.
#[cfg(target_os = "linux")]
pub(super) fn advise(addresses: Range<usize>, pages: libc::c_int) {
    // Whole pages: the ends of a buffer share theirs with its neighbours, which are weights, too.
    let start = addresses.start / HUGE * HUGE;
    let end = addresses.end.next_multiple_of(HUGE);
    #[expect(unsafe_code, reason = "`madvise` has no safe wrapper")]
    // SAFETY: the two advices for huge pages change how memory is backed and nothing that is in it, whoever it
    // belongs to. The range starts at a page; where a part of it is not mapped, that part is passed over.
    unsafe {
        debug_assert!([libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE].contains(&pages));
        libc::madvise(std::ptr::without_provenance_mut(start), end - start, pages);
    }
}

/// glibc's counters, since its version 2.33: an older one still runs the game.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
static MALLINFO2: LazyLock<Option<unsafe extern "C" fn() -> libc::mallinfo2>> =
    LazyLock::new(|| {
        #[expect(
            unsafe_code,
            reason = "a symbol that may be missing is looked up by name"
        )]
        // SAFETY: the name ends with a zero byte. What has it in glibc is this function; a null pointer is `None` of
        // the option, whose layout is that of the pointer.
        unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr());
            std::mem::transmute(found)
        }
    });

/// Bytes of the C heap in use, by the whole process; only glibc counts. Nothing where that would take long.
pub(super) fn heap_in_use() -> Option<u64> {
    static COUNTER: HeapCounter = HeapCounter::new();
    let since = cpu_time();
    let is_early = || cpu_time().saturating_sub(since) < LONGEST_COUNT;
    without_places(|| COUNTER.count(mallinfo), is_early)
}

/// How much of the processor's time a count may take. glibc walks the free blocks of all heaps and holds the lock of each
/// heap meanwhile: where a game has left many holes in its own, it waits.
const LONGEST_COUNT: Duration = Duration::from_millis(2);

/// So many counts in a row have to be long: one may have met an interrupt.
const LONG_COUNTS: u32 = 2;

/// Counts as long as that is cheap.
struct HeapCounter {
    long: AtomicU32,
}

impl HeapCounter {
    const fn new() -> Self {
        Self {
            long: AtomicU32::new(0),
        }
    }

    fn count(&self, count: impl FnOnce() -> Option<u64>) -> Option<u64> {
        if self.long.load(Ordering::Relaxed) >= LONG_COUNTS {
            return None;
        }
        let since = cpu_time();
        let counted = count();
        let took = cpu_time().saturating_sub(since);
        if took <= LONGEST_COUNT {
            // Another thread may have ended the counting meanwhile.
            let unless_ended = |long| (long < LONG_COUNTS).then_some(0);
            let _ = self
                .long
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, unless_ended);
        } else if self.long.fetch_add(1, Ordering::Relaxed) + 1 == LONG_COUNTS {
            debug!("counting the heap takes {took:?}: it is not counted any more");
        }
        counted
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn mallinfo() -> Option<u64> {
    let count = (*MALLINFO2)?;
    #[expect(unsafe_code, reason = "glibc's counters have no safe wrapper")]
    // SAFETY: `mallinfo2` takes no arguments, reads the allocator's counters under its own locks and
    // returns them by value.
    let info = unsafe { count() };
    Some(info.uordblks as u64 + info.hblkhd as u64)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn mallinfo() -> Option<u64> {
    None
}

/// Returns freed heap to the system. Without it glibc keeps freed blocks below its mmap threshold,
/// which grows to 32 MiB. It locks each arena in turn, and takes the game's free blocks, too: the last resort, and never
/// on the main thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    #[expect(unsafe_code, reason = "glibc's trim has no safe wrapper")]
    // SAFETY: `malloc_trim` takes a plain number, may be called on any thread at any time, and only
    // touches memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}

/// Bytes of the whole process in physical memory.
pub(super) fn resident() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[cfg(target_env = "gnu")]
    #[test]
    fn the_heap_is_counted_with_what_the_system_has_mapped_for_it() {
        // Never touched, and more than all that other tests take and leave meanwhile.
        let bytes = 1 << 30;
        let buffer = std::hint::black_box(Vec::<u8>::with_capacity(bytes));
        let before = mallinfo();
        drop(buffer);
        let freed = before
            .zip(mallinfo())
            .map(|(before, after)| before.saturating_sub(after));
        assert!(freed > Some(bytes as u64 / 2), "{freed:?} of {bytes}");
    }

    #[test]
    fn what_takes_long_to_count_is_not_counted_for_long() {
        let counter = HeapCounter::new();
        let slow = || {
            let end = cpu_time() + 2 * LONGEST_COUNT;
            while cpu_time() < end {}
            Some(7)
        };
        assert_eq!(counter.count(slow), Some(7));
        assert_eq!(counter.count(|| Some(6)), Some(6), "once is no rule");
        assert_eq!(counter.count(slow), Some(7));
        assert_eq!(counter.count(slow), Some(7));
        assert_eq!(counter.count(|| unreachable!("it holds the game up")), None);
    }

    #[test]
    fn a_short_count_that_ends_late_does_not_begin_the_counting_again() {
        let counter = HeapCounter::new();
        counter.long.store(LONG_COUNTS - 1, Ordering::Relaxed);
        let late = || {
            counter.long.store(LONG_COUNTS, Ordering::Relaxed);
            Some(6)
        };
        assert_eq!(counter.count(late), Some(6));
        assert_eq!(counter.count(|| unreachable!("it holds the game up")), None);
    }
}
