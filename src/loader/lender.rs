//! [`Lender`]: where readers borrow buffers. Work that finds none is left here, and its reader does other work: readers
//! are those of the whole process, and a busy card must not hold them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::readers::{ReaderHandle, Work};

/// Lends the buffers of one load. Clones are the same lender.
pub(super) struct Lender<B> {
    /// [`None`] when the lending has ended.
    desk: Arc<Mutex<Option<Desk<B>>>>,
    readers: ReaderHandle,
    /// Bytes of each buffer.
    pub(super) length: usize,
}

struct Desk<B> {
    free: Vec<B>,
    /// By its place in the load: files are read in their order.
    waiting: BTreeMap<usize, Work>,
}

impl<B> Clone for Lender<B> {
    fn clone(&self) -> Self {
        Self {
            desk: self.desk.clone(),
            readers: self.readers.clone(),
            length: self.length,
        }
    }
}

impl<B: Send + 'static> Lender<B> {
    pub(super) fn new(readers: ReaderHandle, length: usize) -> Self {
        let desk = Desk {
            free: Vec::new(),
            waiting: BTreeMap::new(),
        };
        Self {
            desk: Arc::new(Mutex::new(Some(desk))),
            readers,
            length,
        }
    }

    /// Lends a buffer to some work. Where none is free, keeps the work: a reader goes on with it when one is back. Where
    /// the lending has ended, drops it.
    pub(super) fn borrow<W: Send + 'static>(
        &self,
        place: usize,
        work: W,
        go_on: fn(W),
    ) -> Option<(B, W)> {
        let mut desk = self.lock();
        let open = desk.as_mut()?;
        if let Some(buffer) = open.free.pop() {
            return Some((buffer, work));
        }
        open.waiting.insert(place, Box::new(move || go_on(work)));
        None
    }

    /// Takes a buffer, a new one or one that comes back, and has the first of those who wait ask again.
    pub(super) fn put(&self, buffer: B) {
        let mut desk = self.lock();
        let Some(open) = desk.as_mut() else {
            drop(desk);
            return drop(buffer);
        };
        open.free.push(buffer);
        let next = open.waiting.pop_first();
        drop(desk);
        if let Some((_, work)) = next {
            self.readers.resume(work);
        }
    }

    /// Ends the lending: what is free and who waits is dropped, here.
    pub(super) fn close(&self) {
        let closed = self.lock().take();
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Desk<B>>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bevy::platform::time::Instant;
    use crossbeam_channel::{Receiver, Sender, unbounded};
    use futures_lite::future::block_on;

    use super::{
        super::readers::{Readers, count},
        *,
    };
    use crate::threads::deadline_in;

    impl<B: Send + 'static> Lender<B> {
        fn waiting(&self) -> usize {
            self.lock().as_ref().map_or(0, |desk| desk.waiting.len())
        }
    }

    /// Work that wants one buffer, and says which it got.
    struct Asks {
        place: usize,
        lender: Lender<u32>,
        got: Sender<(usize, u32)>,
    }

    fn ask(asks: Asks) {
        let lender = asks.lender.clone();
        if let Some((buffer, asks)) = lender.borrow(asks.place, asks, ask) {
            let _ = asks.got.send((asks.place, buffer));
        }
    }

    fn asks(lender: &Lender<u32>, place: usize) -> (Asks, Receiver<(usize, u32)>) {
        let (got, received) = unbounded();
        let lender = lender.clone();
        (Asks { place, lender, got }, received)
    }

    #[test]
    fn a_reader_whose_work_finds_no_buffer_does_other_work() {
        let soon = deadline_in(Duration::from_secs(10));
        let readers = Readers::start(Duration::from_secs(10)).expect("threads");
        let handle = readers.handle();
        let lender = Lender::new(handle.clone(), 0);
        let waiting: Vec<_> = (0..count() + 2)
            .map(|place| {
                let (asks, got) = asks(&lender, place);
                handle.submit(move || ask(asks));
                got
            })
            .collect();
        let other = block_on(handle.run("plan", || Ok("done")));
        assert_eq!(other.expect("a reader is free"), "done");
        while lender.waiting() < waiting.len() {
            assert!(Instant::now() < soon, "{} wait", lender.waiting());
            std::thread::yield_now();
        }
        for (place, got) in waiting.iter().enumerate() {
            lender.put(7);
            assert_eq!(got.recv_deadline(soon), Ok((place, 7)), "in their order");
        }
    }

    #[test]
    fn who_waits_goes_on_in_the_order_of_the_load_and_may_have_to_wait_again() {
        let (handle, resumed) = ReaderHandle::by_hand();
        let lender = Lender::new(handle, 0);
        let (second, got_second) = asks(&lender, 2);
        let (first, got_first) = asks(&lender, 1);
        ask(second);
        ask(first);
        lender.put(7);
        let again = resumed.try_recv().expect("one goes on");
        let (faster, got_faster) = asks(&lender, 0);
        ask(faster);
        assert_eq!(got_faster.try_recv(), Ok((0, 7)));
        again();
        assert!(got_first.try_recv().is_err(), "it was taken meanwhile");
        for (buffer, place, got) in [(8, 1, got_first), (9, 2, got_second)] {
            lender.put(buffer);
            resumed.try_recv().expect("the next goes on")();
            assert_eq!(got.try_recv(), Ok((place, buffer)));
        }
        assert!(resumed.is_empty());
    }

    #[test]
    fn the_end_of_the_lending_drops_who_waits_and_who_comes_later() {
        let (handle, resumed) = ReaderHandle::by_hand();
        let lender = Lender::new(handle, 0);
        let (early, got_early) = asks(&lender, 0);
        ask(early);
        lender.close();
        let (late, got_late) = asks(&lender, 1);
        ask(late);
        lender.put(7);
        for got in [got_early, got_late] {
            assert!(got.recv().is_err(), "it was dropped");
        }
        assert!(resumed.is_empty());
    }
}
