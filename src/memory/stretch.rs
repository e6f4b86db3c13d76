//! Memory for the tensors of a batch, from one stretch of the C library's heap, and its way back to the system.
//!
//! A block that glibc maps by itself begins with a page that is touched at once, which keeps the system from joining it
//! to its neighbours: of blocks of 2 MiB hardly one then has room for a huge page. It maps what is larger than any such
//! block that was freed, so a stretch is taken and freed for that; where a game has fixed the limit, none is taken.
//! Then it is taken as one block and given back but for its first bytes, which keep it in its place: blocks that are
//! taken from it find pages that are huge already. When all are taken, what is not touched yet has small pages again:
//! later a few bytes there would take a huge one, and keep it.
//!
//! glibc keeps what is freed. Its `malloc_trim` gives it back, but not what is free at the end of a thread's heap, up to
//! 64 MiB; and it takes the game's free blocks along, which the game then has to be given page by page in its next frame,
//! and holds up whoever allocates meanwhile. So the first bytes of a stretch stay until the model is gone. Then they
//! grow over the blocks again, which only works where nothing is in the way; what is inside is given back by page.
//! Small blocks would be in the way, since glibc keeps those for the thread that frees them: they are taken elsewhere.
//!
//! All of this only holds places in glibc's heap: no page of it is touched but for a few headers, and nobody else's
//! allocator hears of it. Where another one has taken glibc's place, nothing of it is done; where only Rust's values come
//! from another one, no stretch is taken.

use std::ops::Range;

use super::cpu::{LARGE, advise};

#[cfg(test)]
mod apart;
mod footprint;
mod mapped;
mod own_heap;
mod placeholder;

pub(crate) use footprint::{Footprint, clear_idle_heap, clear_this_heap, take_places};
use mapped::{are_mapped, is_mapped};
use own_heap::{allocator_is_glibcs, take_own};
use placeholder::Placeholder;
pub(super) use placeholder::without_places;

/// The C library maps blocks of so many bytes one by one, whatever it has learned; it takes others from its heaps. Its own
/// limit is 32 MiB, what it adds to a block included.
pub(crate) const MAPPED: usize = (32 << 20) - (64 << 10);

/// Blocks of fewer bytes may be kept by the C library for the thread that frees them: they lie in no stretch.
pub(crate) const SMALL: usize = 2 << 10;

/// Free places of fewer bytes are left to whom they fit: most are a few bytes, and there are many.
const PLACE: usize = 128 << 10;

/// Free places that are taken meanwhile are together as large as so many halves of the stretch, at most: where none of
/// them leads to the stretch, the heap would grow for each.
const PLACES: usize = 64;

/// How many they are, at most.
const PLACES_COUNT: usize = 256;

/// What a block takes beside its bytes, at most: its header and its alignment.
const BESIDE: usize = 32;

/// A stretch of the heap, for the blocks of a batch, until they are full.
#[derive(Default)]
pub(crate) struct Stretch {
    /// Keeps what follows it free.
    start: Option<Placeholder>,
    addresses: Range<usize>,
    huge: bool,
    /// Free places elsewhere, which are taken meanwhile.
    elsewhere: Vec<Placeholder>,
}

impl Stretch {
    /// Takes room for so many blocks, of so many bytes together, in huge pages or in small ones. Until all are taken the
    /// thread is to allocate nothing else. `goes_on` is asked before each step that may touch a huge page, and may take its
    /// time; where it says no, what is taken is of no use.
    pub(crate) fn take(bytes: u64, blocks: usize, huge: bool, goes_on: impl Fn() -> bool) -> Self {
        let mut elsewhere = Vec::with_capacity(PLACES_COUNT);
        let room = room(bytes, blocks);
        let Some(mut start) = room.and_then(|room| take_own(room, &mut elsewhere, &goes_on)) else {
            return Self::default();
        };
        let addresses = start.addresses();
        if are_mapped(&start) {
            return Self::default();
        }
        if huge {
            advise(addresses.clone(), libc::MADV_HUGEPAGE);
        }
        start.resize(1);
        // What another allocator moves keeps no place.
        if start.addresses().start != addresses.start {
            return Self::default();
        }
        let mut stretch = Self {
            start: Some(start),
            addresses,
            huge,
            elsewhere,
        };
        stretch.take_places_elsewhere(goes_on);
        stretch
    }

    /// The C library takes the smallest place in which a block fits: only those that are larger than this one are left.
    fn take_places_elsewhere(&mut self, goes_on: impl Fn() -> bool) {
        let mut bytes = self.addresses.len() / 2;
        let mut left = PLACES * bytes;
        let are_few = |places: &Vec<_>| places.len() < places.capacity();
        while bytes >= PLACE && bytes <= left && are_few(&self.elsewhere) && goes_on() {
            match Placeholder::take(bytes) {
                Some(place) if !self.addresses.contains(&place.addresses().start) => {
                    left -= bytes;
                    self.elsewhere.push(place);
                }
                _ => bytes /= 2,
            }
        }
    }

    /// All blocks of the batch are taken: these. Returns what is to outlive them.
    pub(crate) fn close(&mut self, blocks: impl Iterator<Item = Range<usize>>) -> Footprint {
        self.elsewhere = Vec::new();
        let start = self.start.take();
        let first = start.as_ref().map(|start| start.addresses().start);
        let (mut bytes, mut elsewhere) = (1, 0);
        for block in blocks {
            let is_here = self.addresses.contains(&block.start) && block.end <= self.addresses.end;
            match first {
                Some(first) if is_here => bytes = bytes.max(block.end - first),
                _ if is_mapped(&block) => {}
                _ => elsewhere += block.len() as u64,
            }
        }
        // Another allocator gives back what it likes.
        let elsewhere = if allocator_is_glibcs() { elsewhere } else { 0 };
        Footprint::new(start, bytes, elsewhere)
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        if self.huge {
            advise(self.addresses.clone(), libc::MADV_NOHUGEPAGE);
        }
    }
}

/// The bytes of so many blocks of so many bytes together, which a heap has from now on. What is small needs no room, and
/// what is larger is mapped.
fn room(bytes: u64, blocks: usize) -> Option<usize> {
    let bytes = usize::try_from(bytes).ok()?;
    let room = bytes.checked_add((blocks + 1) * BESIDE)?;
    if bytes < LARGE || room > MAPPED || !allocator_is_glibcs() {
        return None;
    }
    drop(Placeholder::take(room));
    Some(room)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::{
        apart::apart,
        placeholder::{count_used, page_size},
        *,
    };

    const MIB: u64 = 1 << 20;

    fn addresses(block: &Vec<u8>) -> Range<usize> {
        let first = block.as_ptr().addr();
        first..first + block.capacity()
    }

    /// What may stay with the C library.
    fn given_back(mut footprint: Footprint) -> u64 {
        footprint.take_place() + footprint.give_back(|| ())
    }

    /// How many of the whole pages of these bytes are in memory.
    fn pages(bytes: &Range<usize>) -> usize {
        let page = page_size();
        count_used(bytes.start.next_multiple_of(page)..bytes.end / page * page)
    }

    /// Eight blocks of half a mebibyte in a stretch, full, and where they lie.
    fn eight_blocks(huge: bool) -> (Vec<Vec<u8>>, Range<usize>, Footprint) {
        eight_blocks_of(1 << 19, huge)
    }

    fn eight_blocks_of(bytes: usize, huge: bool) -> (Vec<Vec<u8>>, Range<usize>, Footprint) {
        let mut blocks = black_box(Vec::with_capacity(8));
        let mut stretch = Stretch::take(8 * bytes as u64, 8, huge, || true);
        blocks.extend((0..8).map(|_| vec![1_u8; bytes]));
        let footprint = stretch.close(blocks.iter().map(addresses));
        let first = blocks.iter().map(|block| block.as_ptr().addr()).min();
        let end = blocks.iter().map(|block| addresses(block).end).max();
        let whole = first.expect("blocks")..end.expect("blocks");
        (blocks, whole, footprint)
    }

    #[test]
    fn a_batch_that_is_small_or_mapped_anyway_needs_no_stretch() {
        for bytes in [0, LARGE as u64 - 1, MAPPED as u64, 32 * MIB, u64::MAX] {
            assert!(
                Stretch::take(bytes, 1, true, || true).start.is_none(),
                "{bytes}"
            );
        }
    }

    #[test]
    fn the_blocks_of_a_stretch_lie_side_by_side_and_come_back_when_they_are_dropped() {
        apart(|| {
            for huge in [false, true] {
                let (blocks, whole, footprint) = eight_blocks(huge);
                assert!(
                    footprint.elsewhere == 0 && whole.len() < 9 << 19,
                    "{whole:?}"
                );
                let full = pages(&whole);
                drop(blocks);
                assert_eq!(given_back(footprint), 0, "something is in the way");
                let left = pages(&whole);
                assert!(full > 1000 && left < 10, "{full} pages, then {left}");
            }
        });
    }

    #[test]
    fn memory_comes_back_in_pieces_with_a_pause_before_each() {
        apart(|| {
            let (blocks, whole, mut footprint) = eight_blocks_of(3 << 20, true);
            drop(blocks);
            assert_eq!(footprint.take_place(), 0);
            let left = std::cell::RefCell::new(Vec::new());
            footprint.give_back(|| left.borrow_mut().push(pages(&whole)));
            let left = left.into_inner();
            assert!((3..=4).contains(&left.len()), "{left:?}");
            assert!(
                left.is_sorted_by(|before, after| before > after),
                "{left:?}"
            );
        });
    }

    #[test]
    fn what_is_in_the_way_is_left_alone_and_counted() {
        apart(|| {
            let (mut blocks, whole, footprint) = eight_blocks(false);
            let kept = blocks.swap_remove(4);
            drop(blocks);
            assert!(given_back(footprint) >= whole.len() as u64);
            assert!(kept.iter().all(|&byte| byte == 1), "it was taken away");
        });
    }

    #[test]
    fn blocks_elsewhere_are_counted() {
        apart(|| {
            // From now on no block of this size is mapped by itself.
            drop(Stretch::take(30 * MIB, 1, false, || true));
            let elsewhere = vec![1_u8; 1 << 19];
            let mut stretch = Stretch::take(4 * MIB, 8, false, || true);
            let inside = vec![1_u8; 1 << 19];
            let blocks = [&inside, &elsewhere].into_iter().map(addresses);
            let footprint = stretch.close(blocks);
            drop(inside);
            assert_eq!(given_back(footprint), 1 << 19);
            let none = Stretch::default().close([0..7, 0..MAPPED].into_iter());
            assert_eq!(given_back(none), 7);
        });
    }

    #[test]
    fn blocks_do_not_go_where_they_would_fit_better() {
        apart(|| {
            drop(Stretch::take(30 * MIB, 1, false, || true));
            let mut holes = black_box(Vec::new());
            let mut kept = black_box(Vec::new());
            for _ in 0..10 {
                holes.push(vec![1_u8; 1 << 20]);
                kept.push(vec![1_u8; 1 << 20]);
            }
            drop(holes);
            let (blocks, _, footprint) = eight_blocks(false);
            assert!(footprint.bytes > 4 << 20, "{} bytes", footprint.bytes);
            drop((kept, blocks));
        });
    }

    #[test]
    fn nothing_more_is_taken_for_a_load_that_has_ended() {
        apart(|| {
            let take = |answers: usize| {
                let asked = std::cell::Cell::new(0);
                let goes_on = || asked.replace(asked.get() + 1) < answers;
                let stretch = Stretch::take(4 * MIB, 8, true, goes_on);
                (
                    stretch.start.is_some(),
                    stretch.elsewhere.len(),
                    asked.get(),
                )
            };
            drop(Stretch::take(30 * MIB, 1, false, || true));
            // Places of two mebibytes, of which many are taken.
            let mut holes = black_box(Vec::new());
            let mut kept = black_box(Vec::new());
            for _ in 0..10 {
                holes.push(vec![1_u8; 2 << 20]);
                kept.push(vec![1_u8; 1 << 20]);
            }
            drop(holes);
            assert_eq!(take(0), (false, 0, 1));
            assert_eq!(take(1), (true, 0, 2));
            let (_, places, asked) = take(3);
            assert!(places <= 2 && asked == 4, "{places} of {asked}");
            let (_, places, asked) = take(usize::MAX);
            assert!(2 < places && places < asked, "{places} of {asked}");
            drop(kept);
        });
    }

    #[test]
    fn a_thread_that_clears_its_heap_is_not_in_the_way_of_those_who_give_it_back() {
        apart(|| {
            let (dropped, to_take) = std::sync::mpsc::sync_channel::<Footprint>(0);
            let (taken, left) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                for footprint in to_take {
                    let left = take_places(&mut [footprint].into_iter().collect());
                    let _ = taken.send(left);
                }
            });
            for _ in 0..100 {
                let (blocks, _, footprint) = eight_blocks_of(3 << 20, false);
                drop(blocks);
                dropped.send(footprint).expect("it takes all");
                clear_this_heap(|| ());
                assert_eq!(left.recv().expect("an answer"), 0);
            }
        });
    }

    #[test]
    fn blocks_that_all_lie_elsewhere_are_counted() {
        apart(|| {
            let outside = 0..1 << 20;
            let mut stretch = Stretch::take(4 * MIB, 1, false, || true);
            assert!(stretch.start.is_some());
            assert_eq!(given_back(stretch.close([outside].into_iter())), MIB);
        });
    }

    #[test]
    fn what_a_thread_has_used_and_dropped_comes_back_in_all_its_pieces() {
        apart(|| {
            drop(Stretch::take(30 * MIB, 1, false, || true));
            // More than one piece can have, and one that stays in the middle.
            let mut blocks: Vec<_> = (0..48).map(|_| vec![1_u8; 1 << 20]).collect();
            let kept = blocks.swap_remove(20);
            let places: Vec<_> = blocks.iter().map(addresses).collect();
            let used = || places.iter().map(pages).sum::<usize>();
            let full = used();
            drop(black_box(blocks));
            let footprints = Footprint::of_this_heap();
            let left = footprints.into_iter().map(given_back);
            assert_eq!(left.sum::<u64>(), 0);
            assert!(
                full > 11_000 && used() < 200,
                "{full} pages, then {}",
                used()
            );
            drop(kept);
        });
    }
}
