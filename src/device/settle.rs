//! [`settle`]: waits for what a device still works on.

use std::error::Error;

use candle_core::Device;
use tracing::warn;

#[cfg(feature = "cuda")]
use super::fault::Fault;
use crate::ErrorChain;

/// Waits for what the device still works on. What is returned has failed for itself, and not for others.
pub(crate) fn settle(device: &Device) -> candle_core::Result<()> {
    if device.is_cpu() {
        return Ok(());
    }
    try_to_wait(|| device.synchronize(), is_sticky)
}

/// The first wait after a drop that failed only tells of that, and so does the second where another drop came between; what
/// they say is logged. A device that is lost says so again, and need not be asked a third time.
fn try_to_wait<E: Error + 'static>(
    mut wait: impl FnMut() -> Result<(), E>,
    is_sticky: impl Fn(&E) -> bool,
) -> Result<(), E> {
    let log = |error: &E| warn!("something failed on the device: {}", ErrorChain(error));
    let Err(first) = wait() else { return Ok(()) };
    log(&first);
    match wait() {
        Err(second) if !is_sticky(&second) => {
            log(&second);
            wait()
        }
        settled => settled,
    }
}

#[cfg(feature = "cuda")]
fn is_sticky(error: &candle_core::Error) -> bool {
    Fault::behind(error) == Fault::Sticky
}

#[cfg(not(feature = "cuda"))]
fn is_sticky(_: &candle_core::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::device::fault::Fault;

    /// A driver's number.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Code(u32);

    impl fmt::Display for Code {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Error for Code {}

    const BAD_ARGUMENT: u32 = 1;
    const NO_MEMORY: u32 = 2;
    const ILLEGAL_ADDRESS: u32 = 700;

    /// What comes out of waits that fail with these numbers and then succeed, and how many there were.
    fn settled(fail: &[u32]) -> (Result<(), Code>, usize) {
        let mut waits = 0;
        let wait = || {
            waits += 1;
            fail.get(waits - 1).map_or(Ok(()), |code| Err(Code(*code)))
        };
        let is_sticky = |code: &Code| Fault::of_driver(code.0) == Fault::Sticky;
        let result = try_to_wait(wait, is_sticky);
        (result, waits)
    }

    #[test]
    fn drops_of_others_that_failed_are_passed_over() {
        assert_eq!(settled(&[]), (Ok(()), 1));
        for code in [BAD_ARGUMENT, NO_MEMORY, ILLEGAL_ADDRESS] {
            assert_eq!(settled(&[code]), (Ok(()), 2), "one, with {code}");
            for second in [BAD_ARGUMENT, NO_MEMORY] {
                assert_eq!(settled(&[code, second]), (Ok(()), 3), "{code}, {second}");
            }
        }
    }

    #[test]
    fn a_lost_device_is_asked_twice() {
        for first in [BAD_ARGUMENT, ILLEGAL_ADDRESS] {
            let (result, waits) = settled(&[first, ILLEGAL_ADDRESS, ILLEGAL_ADDRESS]);
            assert_eq!((result, waits), (Err(Code(ILLEGAL_ADDRESS)), 2));
        }
    }

    #[test]
    fn what_fails_a_third_time_is_returned() {
        for third in [BAD_ARGUMENT, NO_MEMORY, ILLEGAL_ADDRESS] {
            let (result, waits) = settled(&[BAD_ARGUMENT, NO_MEMORY, third]);
            assert_eq!((result, waits), (Err(Code(third)), 3));
        }
    }
}
