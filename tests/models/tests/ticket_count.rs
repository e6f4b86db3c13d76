//! A load's memory has many holders; the last one tells, once, and by then all of it is freed.

#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread,
};

/// What holds memory: its fields drop in order, the ticket last.
struct Buffer {
    memory: Memory,
    _ticket: Arc<Ticket>,
}

/// Counts itself away, with the weakest order there is: what makes it visible is the ticket.
struct Memory(Arc<AtomicUsize>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

struct Ticket {
    alive: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        assert_eq!(self.alive.load(Relaxed), 0, "told with memory alive");
        self.told.fetch_add(1, Relaxed);
    }
}

#[test]
fn the_last_holder_tells_when_all_memory_is_gone() {
    loom::model(|| {
        let (alive, told) = (Arc::new(AtomicUsize::new(3)), Arc::new(AtomicUsize::new(0)));
        let ticket = Arc::new(Ticket {
            alive: alive.clone(),
            told: told.clone(),
        });
        let buffer = || Buffer {
            memory: Memory(alive.clone()),
            _ticket: ticket.clone(),
        };
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let buffer = buffer();
                thread::spawn(move || drop(buffer))
            })
            .collect();
        let owner = buffer();
        drop(ticket);
        drop(owner.memory);
        drop(owner._ticket);
        for reader in readers {
            reader.join().expect("a reader ends");
        }
        assert_eq!(told.load(Relaxed), 1);
    });
}

/// `std::sync::Weak`, whose count loom does not have.
struct Count {
    holders: AtomicUsize,
    ends: AtomicUsize,
}

impl Count {
    fn upgrade(&self) -> bool {
        let mut holders = self.holders.load(Relaxed);
        while holders > 0 {
            let more = holders + 1;
            match self
                .holders
                .compare_exchange_weak(holders, more, Acquire, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => holders = now,
            }
        }
        false
    }

    fn release(&self) {
        if self.holders.fetch_sub(1, Release) == 1 {
            loom::sync::atomic::fence(Acquire);
            self.ends.fetch_add(1, AcqRel);
        }
    }
}

/// A reader whose turn comes late asks for the ticket while the owner lets go.
#[test]
fn nobody_takes_up_a_load_that_has_ended() {
    loom::model(|| {
        let count = Arc::new(Count {
            holders: AtomicUsize::new(1),
            ends: AtomicUsize::new(0),
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let count = count.clone();
                thread::spawn(move || {
                    if count.upgrade() {
                        assert_eq!(count.ends.load(Acquire), 0, "taken up after its end");
                        count.release();
                    }
                })
            })
            .collect();
        count.release();
        for reader in readers {
            reader.join().expect("a reader ends");
        }
        assert_eq!(count.ends.load(Acquire), 1);
        assert!(!count.upgrade());
    });
}
