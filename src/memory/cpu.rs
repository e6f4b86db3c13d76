//! The CPU's memory: what the C library and the system say, and how to give it back.
//!
//! The only calls of the operating system for memory are here, each with a portable fallback.

/// Bytes of the C heap in use, by the whole process; only glibc counts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn heap_in_use() -> Option<u64> {
    #[expect(unsafe_code, reason = "glibc's counters have no safe wrapper")]
    // SAFETY: `mallinfo2` takes no arguments, reads the allocator's counters under its own locks and
    // returns them by value.
    let info = unsafe { libc::mallinfo2() };
    Some(info.uordblks as u64 + info.hblkhd as u64)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn heap_in_use() -> Option<u64> {
    None
}

/// Returns freed heap to the system. Without it glibc keeps freed blocks below its mmap threshold,
/// which grows to 32 MiB. It locks each arena in turn: never on the main thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn trim() {
    #[expect(unsafe_code, reason = "glibc's trim has no safe wrapper")]
    // SAFETY: `malloc_trim` takes a plain number, may be called on any thread at any time, and only
    // touches memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim() {}

/// Bytes of the whole process in physical memory.
pub(super) fn resident() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}
