//! Blocks of the calling thread's own heap, and no other's.
//!
//! Where a block does not fit in what is free at the end of a thread's heap, glibc maps another heap, frees that end, and
//! with it trims the new one away again, since nothing is in it yet (`sysmalloc` in its `malloc.c`). The block then comes
//! from the process's first heap, and those that follow may come from anywhere.

use std::{hint::black_box, sync::LazyLock};

use super::{
    PLACE,
    placeholder::{Placeholder, program_break},
};

/// Bytes that any heap has, and that `malloc` keeps for no thread.
const PROBE: usize = 2 << 10;

/// Bytes of a block that `malloc` keeps for the thread that frees it.
const KEPT: usize = 64;

/// Takes a block of this thread's heap. Adds what has to be held for it to `held`, as far as that has room. `goes_on` is
/// asked before each step.
pub(super) fn take_own(
    bytes: usize,
    held: &mut Vec<Placeholder>,
    goes_on: impl Fn() -> bool,
) -> Option<Placeholder> {
    let mut end = bytes / 2;
    while goes_on() {
        let place = Placeholder::take(bytes)?;
        if is_own(&place) {
            return Some(place);
        }
        drop(place);
        // Nothing may be free at the end.
        let place = Placeholder::take(end)?;
        if is_own(&place) && held.len() < held.capacity() {
            held.push(place);
        } else if end > PLACE {
            end /= 2;
        } else {
            return None;
        }
    }
    None
}

/// Whether a block is of this thread's heap, as far as one can tell: not of the process's first, unless that is this
/// thread's, too. Where mappings lie below the first heap, which a process can ask for, every block counts.
pub(super) fn is_own(place: &Placeholder) -> bool {
    let is_first = |place: &Placeholder| place.addresses().start < program_break();
    // The first heap is that of some threads, and may go on elsewhere.
    !is_first(place) || Placeholder::take(PROBE).is_some_and(|own| is_first(&own))
}

/// Whether what Rust allocates lies in glibc's heaps. A game may bring another allocator.
pub(super) fn allocator_is_glibcs() -> bool {
    static IS: LazyLock<bool> = LazyLock::new(|| is_glibcs(|| black_box(Vec::with_capacity(KEPT))));
    *IS
}

/// Whether this is how glibc allocates: what was freed last is taken first.
fn is_glibcs(allocate: impl FnOnce() -> Vec<u8>) -> bool {
    // With the first one the thread gets those that it keeps.
    drop(Placeholder::take(KEPT));
    let freed = Placeholder::take(KEPT).map(|place| place.addresses().start);
    freed == Some(allocate().as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::{
        super::{PLACES_COUNT, apart::apart},
        *,
    };

    const MIB: usize = 1 << 20;

    /// Takes a block that does not fit what is free at the end of this heap. Returns whether something had to be held.
    fn take_beside(end: usize) -> bool {
        // From now on it maps no block of this size by itself.
        drop(Placeholder::take(31 * MIB));
        let _before = [28 * MIB, (27 - end) * MIB].map(Placeholder::take);
        drop(Placeholder::take(end * MIB));
        let mut held = Vec::with_capacity(PLACES_COUNT);
        let own = take_own(28 * MIB, &mut held, || true);
        assert!(own.is_some_and(|own| is_own(&own)), "{end}");
        !held.is_empty()
    }

    #[test]
    fn blocks_are_of_this_heap_whatever_is_free_at_its_end() {
        apart(|| {
            // A thread may share its heap with another one, where nothing is in the way: some are asked, all alive.
            let alive = (0..20).map(|_| {
                let ((tell, told), (keep, kept)) = (channel(), channel::<()>());
                std::thread::spawn(move || {
                    let _ = tell.send([1, 4, 9].map(take_beside).contains(&true));
                    let _ = kept.recv();
                });
                (keep, told.recv().expect("a check that passes"))
            });
            let mut keeps = Vec::new();
            let was_held = alive
                .inspect(|(keep, _)| keeps.push(keep.clone()))
                .any(|(_, was_held)| was_held);
            assert!(was_held, "nothing was in the way");
        });
    }

    #[test]
    fn an_allocator_is_known_by_the_place_that_it_takes() {
        assert!(allocator_is_glibcs());
        let other = Vec::with_capacity(KEPT);
        assert!(!is_glibcs(|| other));
    }
}
