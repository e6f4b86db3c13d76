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
const KEPT: usize = 512;

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

/// Whether a block was taken from the heap of this thread.
pub(super) fn is_own(place: &Placeholder) -> bool {
    // The first heap grows with the program, the others lie where memory is mapped.
    let is_first = |place: &Placeholder| place.addresses().start < program_break();
    Placeholder::take(PROBE).is_some_and(|own| is_first(&own) == is_first(place))
}

/// Whether what Rust allocates lies in glibc's heaps. A game may bring another allocator.
pub(super) fn allocator_is_glibcs() -> bool {
    static IS: LazyLock<bool> = LazyLock::new(|| is_glibcs(|| black_box(Vec::with_capacity(KEPT))));
    *IS
}

/// Whether this is how glibc allocates: what was freed last is taken first.
fn is_glibcs(allocate: impl FnOnce() -> Vec<u8>) -> bool {
    let freed = Placeholder::take(KEPT).map(|place| place.addresses().start);
    freed == Some(allocate().as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn blocks_are_of_this_heap_whatever_is_free_at_its_end() {
        let checked = std::thread::spawn(|| {
            // From now on it maps no block of this size by itself.
            drop(Placeholder::take(31 * MIB));
            for end in [1, 4, 9] {
                let before = [28 * MIB, (27 - end) * MIB].map(Placeholder::take);
                drop(Placeholder::take(end * MIB));
                let mut held = Vec::with_capacity(8);
                let own = take_own(28 * MIB, &mut held, || true);
                assert!(!held.is_empty(), "nothing was in the way of {end}");
                assert!(own.is_some_and(|own| is_own(&own)), "{end}");
                drop(before);
            }
        });
        checked.join().expect("a check that passes");
    }

    #[test]
    fn an_allocator_is_known_by_the_place_that_it_takes() {
        assert!(allocator_is_glibcs());
        let other = Vec::with_capacity(KEPT);
        assert!(!is_glibcs(|| other));
    }
}
