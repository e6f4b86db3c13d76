//! [`Footprint`]: where the memory of dropped tensors lay, and its way back to the system.

use std::{
    collections::LinkedList,
    sync::{PoisonError, RwLock},
};

use super::{BESIDE, MAPPED, PLACE, PLACES_COUNT, own_heap::is_own, placeholder::Placeholder};

/// Threads that clear their heaps hold free places for a moment, and with them those of dropped tensors. Shared by them;
/// whoever takes a tensor's place has it alone.
static CLEARING: RwLock<()> = RwLock::new(());

/// Gives back what the calling thread has used of its own heap, and freed, with a pause before each piece.
pub(crate) fn clear_this_heap(pause: impl Fn()) {
    let _shared = CLEARING.read().unwrap_or_else(PoisonError::into_inner);
    clear(pause);
}

/// The same for a thread that has nothing to do, and must not wait for others: while one of them takes a tensor's place,
/// what is left here stays until the next time.
pub(crate) fn clear_idle_heap() {
    if let Ok(_shared) = CLEARING.try_read() {
        clear(|| ());
    }
}

fn clear(pause: impl Fn()) {
    for footprint in Footprint::of_this_heap() {
        let _ = footprint.give_back(&pause);
    }
}

/// Takes the places of all of them at once, before others do. Returns how many bytes may stay with the C library.
pub(crate) fn take_places(footprints: &mut LinkedList<Footprint>) -> u64 {
    let _alone = CLEARING.write().unwrap_or_else(PoisonError::into_inner);
    footprints.iter_mut().map(Footprint::take_place).sum()
}

/// Where the blocks of a stretch lie, from its first bytes to the end of the last block.
pub(crate) struct Footprint {
    start: Option<Placeholder>,
    pub(super) bytes: usize,
    /// Bytes of blocks that lie somewhere else.
    pub(super) elsewhere: u64,
}

impl Footprint {
    pub(super) fn new(start: Option<Placeholder>, bytes: usize, elsewhere: u64) -> Self {
        Self {
            start,
            bytes,
            elsewhere,
        }
    }

    /// What was used of the calling thread's own heap and is free, in pieces of 128 KiB or more.
    pub(crate) fn of_this_heap() -> Vec<Self> {
        let mut found = Vec::with_capacity(PLACES_COUNT);
        let mut bytes = MAPPED - 2 * BESIDE;
        while bytes >= PLACE && found.len() < found.capacity() {
            match Placeholder::take(bytes) {
                Some(place) if place.was_used() && is_own(&place) => found.push(Self {
                    bytes: place.addresses().len(),
                    start: Some(place),
                    elsewhere: 0,
                }),
                _ => bytes /= 2,
            }
        }
        found
    }

    /// Takes the place of the blocks, after they were dropped. Returns how many bytes may stay with the C library.
    pub(super) fn take_place(&mut self) -> u64 {
        let Some(mut free) = self.start.take() else {
            return self.elsewhere;
        };
        let place = free.addresses().start;
        free.resize(self.bytes);
        if free.addresses() != (place..place + self.bytes) {
            return self.elsewhere + self.bytes as u64;
        }
        self.start = Some(free);
        self.elsewhere
    }

    /// Gives the memory of that place back to the system, with a pause before each piece. Returns how many bytes may stay.
    pub(crate) fn give_back(self, pause: impl Fn()) -> u64 {
        match self.start {
            Some(free) if !free.give_pages_back(pause) => self.bytes as u64,
            _ => 0,
        }
    }
}
