//! Blocks that the C library maps by themselves, and gives back so.

use std::ops::Range;

use super::{
    MAPPED, PLACE,
    placeholder::{Placeholder, page_size},
};

/// Whether a block was mapped by itself: then it follows a header at the start of a page.
pub(super) fn is_mapped(block: &Range<usize>) -> bool {
    let header = 2 * size_of::<usize>();
    block.len() >= MAPPED || block.len() >= PLACE && block.start % page_size() == header
}

/// Whether blocks of this size are mapped, whatever was freed before: a game may have fixed from where on that is. One
/// block of a heap looks like it by chance.
pub(super) fn are_mapped(one: &Placeholder) -> bool {
    let next = || Placeholder::take(one.addresses().len());
    is_mapped(&one.addresses()) && next().is_some_and(|next| is_mapped(&next.addresses()))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Stretch, apart::apart_with},
        *,
    };

    /// What may stay with the C library of blocks that lie in no stretch.
    fn left(blocks: [Range<usize>; 2]) -> u64 {
        Stretch::default().close(blocks.into_iter()).take_place()
    }

    #[test]
    fn blocks_that_are_mapped_go_by_themselves() {
        let first = page_size() + 2 * size_of::<usize>();
        assert_eq!(left([first..first + PLACE, 0..MAPPED]), 0);
        let others = [first + 16..first + 16 + PLACE, first..first + 1];
        assert_eq!(left(others), PLACE as u64 + 1);
    }

    #[test]
    fn no_stretch_is_taken_where_all_is_mapped() {
        apart_with(&[("MALLOC_MMAP_THRESHOLD_", "131072")], || {
            let stretch = Stretch::take(4 << 20, 8, false, || true);
            assert!(stretch.start.is_none());
        });
    }
}
