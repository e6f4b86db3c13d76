//! [`sleep_until`] on the device thread, and the [`block_on`] that ends such sleeps: no thread of its own.

use std::{
    cell::RefCell,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bevy::platform::time::Instant;

thread_local! {
    static SLEEPERS: RefCell<Vec<Sleeper>> = const { RefCell::new(Vec::new()) };
}

/// Somebody who sleeps on this thread.
struct Sleeper {
    due: Instant,
    waker: Waker,
}

/// Sleeps until then, on the thread that polls it, which must be in [`block_on`].
pub(crate) fn sleep_until(due: Instant) -> Sleep {
    Sleep(due)
}

/// See [`sleep_until`].
pub(crate) struct Sleep(Instant);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.0 {
            return Poll::Ready(());
        }
        let (due, waker) = (self.0, context.waker().clone());
        // One that is polled again is woken twice, which does no harm: it is there until it is due.
        SLEEPERS.with_borrow_mut(|sleepers| {
            let known = |other: &Sleeper| other.due == due && other.waker.will_wake(&waker);
            if !sleepers.iter().any(known) {
                sleepers.push(Sleeper { due, waker });
            }
        });
        Poll::Pending
    }
}

/// Wakes who is due; returns when the next one is.
pub(super) fn wake_due() -> Option<Instant> {
    let now = Instant::now();
    let due: Vec<_> = SLEEPERS.with_borrow_mut(|sleepers| {
        sleepers
            .extract_if(.., |sleeper| sleeper.due <= now)
            .collect()
    });
    due.into_iter().for_each(|sleeper| sleeper.waker.wake());
    SLEEPERS.with_borrow(|sleepers| sleepers.iter().map(|sleeper| sleeper.due).min())
}

/// Wakes a thread that is parked. The flag counts: a model's own waiting may take the thread's token.
struct Alarm {
    thread: Thread,
    rings: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rings.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs a future to its end on this thread, sleeps included.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let alarm = Arc::new(Alarm {
        thread: thread::current(),
        rings: AtomicBool::new(false),
    });
    let waker = Waker::from(alarm.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut next = wake_due();
        while !alarm.rings.swap(false, Ordering::AcqRel) {
            match next {
                Some(due) => thread::park_timeout(due.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
            next = wake_due();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_lite::future;

    use super::*;

    #[test]
    fn a_sleep_ends_when_it_is_due_and_not_before() {
        let begun = Instant::now();
        let due = begun + Duration::from_millis(20);
        block_on(sleep_until(due));
        assert!(Instant::now() >= due);
        block_on(sleep_until(begun));
    }

    #[test]
    fn the_sooner_of_two_sleeps_ends_first_and_the_other_is_forgotten() {
        let now = Instant::now();
        let sooner = async {
            sleep_until(now + Duration::from_millis(10)).await;
            "sooner"
        };
        let later = async {
            sleep_until(now + Duration::from_secs(3600)).await;
            "later"
        };
        assert_eq!(block_on(future::or(later, sooner)), "sooner");
    }

    #[test]
    fn another_thread_wakes_a_sleeper_though_its_token_was_taken() {
        let (sender, receiver) = async_channel::bounded(1);
        let told = thread::spawn(move || sender.send_blocking(7));
        let answer = block_on(async {
            // A pipeline that parks by itself, and takes a token that was for the executor.
            thread::park_timeout(Duration::from_millis(20));
            let sleep = async {
                sleep_until(Instant::now() + Duration::from_secs(3600)).await;
                Ok(0)
            };
            future::or(sleep, receiver.recv()).await
        });
        assert_eq!(answer, Ok(7));
        told.join().expect("it ends").expect("it is heard");
    }
}
