//! A block of glibc's heap that only keeps its place, and gives the pages inside back to the system.

use std::{
    ffi::{CStr, c_void},
    hint::black_box,
    mem::MaybeUninit,
    ops::Range,
    ptr::NonNull,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::memory::cpu::HUGE;

/// What is given back in one go, a fraction of a millisecond: whole huge pages, since a half would be cut in small ones.
const PIECE: usize = 4 * HUGE;

/// Bytes of all placeholders.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// How many changes of that have begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// How many of them are done.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Returns the bytes in use by `count`, less those that only keep their place: for `malloc` they are in use, too. Where
/// somebody takes or leaves places meanwhile it counts `again`, as long as that says so; then the last count is off by
/// those places.
pub(in crate::memory) fn without_places(
    count: impl Fn() -> Option<u64>,
    again: impl Fn() -> bool,
) -> Option<u64> {
    loop {
        let done = DONE.load(Ordering::SeqCst);
        let held = HELD.load(Ordering::SeqCst);
        let in_use = count()?.saturating_sub(held as u64);
        // Where they are equal, no change was under way from the first line to this one.
        if BEGUN.load(Ordering::SeqCst) == done || !again() {
            return Some(in_use);
        }
    }
}

/// A change of what placeholders hold, from before the heap hears of it until after.
#[derive(Default)]
struct Change {
    more: usize,
}

impl Change {
    fn begin() -> Self {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        Self::default()
    }

    fn note(&mut self, from: usize, to: usize) {
        self.more = to.wrapping_sub(from);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        HELD.fetch_add(self.more, Ordering::SeqCst);
        DONE.fetch_add(1, Ordering::SeqCst);
    }
}

/// A block of the heap in which nothing is ever written.
pub(super) struct Placeholder {
    address: NonNull<c_void>,
    bytes: usize,
}

#[expect(unsafe_code, reason = "the block is not of this thread")]
// SAFETY: blocks of `malloc` may be freed on any thread, and nothing is in this one.
unsafe impl Send for Placeholder {}

impl Placeholder {
    /// Nothing where `malloc` is not glibc's: this is about how that one keeps its blocks.
    pub(super) fn take(bytes: usize) -> Option<Self> {
        if !heap_is_glibcs() {
            return None;
        }
        let mut change = Change::begin();
        #[expect(
            unsafe_code,
            reason = "this very heap is wanted, whatever allocator the game has"
        )]
        // SAFETY: `malloc` takes any number of bytes.
        let address = unsafe { libc::malloc(bytes) };
        // A block in which nothing is written would be optimized away.
        let address = NonNull::new(black_box(address))?;
        change.note(0, bytes);
        Some(Self { address, bytes })
    }

    pub(super) fn addresses(&self) -> Range<usize> {
        let first = self.address.addr().get();
        first..first + self.bytes
    }

    /// Gives all but its first bytes back to the heap, or takes what follows it. Where that is not free, the block moves;
    /// where there is no memory, nothing happens.
    pub(super) fn resize(&mut self, bytes: usize) {
        let mut change = Change::begin();
        #[expect(unsafe_code, reason = "as it was taken")]
        // SAFETY: the block came from `malloc`, is alive, and is this value's alone; it is replaced by what is
        // returned, and left alone where that is nothing.
        let resized = unsafe { libc::realloc(self.address.as_ptr(), bytes) };
        if let Some(address) = NonNull::new(resized) {
            change.note(self.bytes, bytes);
            self.address = address;
            self.bytes = bytes;
        }
    }

    /// The whole pages inside.
    fn pages(&self) -> Range<usize> {
        let page = page_size();
        let Range { start, end } = self.addresses();
        let start = start.next_multiple_of(page);
        start..(end / page * page).max(start)
    }

    /// Whether any page inside is in memory.
    pub(super) fn was_used(&self) -> bool {
        count_used(self.pages()) > 0
    }

    /// Gives the memory of its whole pages back to the system, piece by piece; the block keeps its place. Returns false
    /// where the system refuses.
    pub(super) fn give_pages_back(&self, pause: impl Fn()) -> bool {
        let mut left = self.pages();
        while !left.is_empty() {
            pause();
            let end = left.end.min((left.start + 1).next_multiple_of(PIECE));
            if !self.give_back_piece(left.start..end) {
                return false;
            }
            left.start = end;
        }
        true
    }

    fn give_back_piece(&self, pages: Range<usize>) -> bool {
        #[expect(unsafe_code, reason = "`madvise` has no safe wrapper")]
        // SAFETY: the pages are some of `pages`: they lie in this block as a whole, which is this value's alone, and in
        // which nothing is. They read as zeros afterwards.
        let refused = unsafe {
            let first = self.address.as_ptr().with_addr(pages.start);
            libc::madvise(first, pages.len(), libc::MADV_DONTNEED)
        };
        refused == 0
    }
}

/// How many of these pages are in memory; none where the system does not say.
pub(super) fn count_used(pages: Range<usize>) -> usize {
    let mut used = vec![0_u8; pages.len() / page_size()];
    let first = std::ptr::without_provenance_mut(pages.start);
    #[expect(unsafe_code, reason = "`mincore` has no safe wrapper")]
    // SAFETY: it reads no memory but the system's tables, and writes a byte for each page that it is asked for.
    let refused = unsafe { libc::mincore(first, pages.len(), used.as_mut_ptr()) };
    let used = used.iter().filter(|&&page| page & 1 == 1).count();
    if refused == 0 { used } else { 0 }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let mut change = Change::begin();
        change.note(self.bytes, 0);
        #[expect(unsafe_code, reason = "as it was taken")]
        // SAFETY: the block came from `malloc` or `realloc`, and this value is its only owner.
        unsafe {
            libc::free(self.address.as_ptr());
        }
    }
}

/// Whether glibc itself answers to `malloc`. A game may be started with another in its place, and sanitizers bring their
/// own. A program at a fixed place that takes the address of `malloc` seems to bring its own, too.
fn heap_is_glibcs() -> bool {
    static IS: LazyLock<bool> =
        LazyLock::new(|| library_of(c"malloc") == library_of(c"gnu_get_libc_version"));
    *IS
}

/// Where the library begins that has this symbol for the whole process; nothing where all of it is one program.
fn library_of(symbol: &CStr) -> Option<NonNull<c_void>> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    #[expect(unsafe_code, reason = "the dynamic linker has no safe wrapper")]
    // SAFETY: the name ends with a zero byte, the address is only looked up, and what is written is plain pointers, for
    // which zeros are fine, too.
    let found = unsafe {
        let address = libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr());
        libc::dladdr(address, found.as_mut_ptr());
        found.assume_init()
    };
    NonNull::new(found.dli_fbase)
}

/// Where the first heap of the process ends; as a rule others lie beyond.
pub(super) fn program_break() -> usize {
    #[expect(unsafe_code, reason = "`sbrk` has no safe wrapper")]
    // SAFETY: moved by nothing, the end is only returned.
    let end = unsafe { libc::sbrk(0) };
    end.addr()
}

pub(super) fn page_size() -> usize {
    #[expect(unsafe_code, reason = "`sysconf` has no safe wrapper")]
    // SAFETY: it takes a plain number and returns one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has pages")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often the heap is counted, three times at most, where something happens during the first count.
    fn counts(meanwhile: impl Fn()) -> usize {
        let counts = Cell::new(0);
        let count = || {
            counts.set(counts.get() + 1);
            if counts.get() == 1 {
                meanwhile();
            }
            Some(0)
        };
        assert!(without_places(count, || counts.get() < 3).is_some());
        counts.get()
    }

    #[test]
    fn the_heap_is_counted_again_where_a_place_was_taken_meanwhile() {
        assert!(counts(|| drop(Placeholder::take(PIECE))) > 1);
    }

    #[test]
    fn the_heap_is_counted_again_beside_a_change_that_is_not_done() {
        let _change = Change::begin();
        assert_eq!(counts(|| {}), 3);
    }

    #[test]
    fn symbols_are_found_in_their_libraries() {
        assert_eq!(library_of(c"nobody_has_this"), None);
        let found = [c"malloc", c"free", c"gnu_get_libc_version"].map(library_of);
        assert!(found[0].is_some() && found[2].is_some(), "{found:?}");
        assert_eq!(found[0], found[1]);
    }
}
