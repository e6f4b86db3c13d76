//! Panics in code that is not ours: caught, named, and turned into errors.

use std::{
    any::Any,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_lite::FutureExt;
use tracing::error;

use crate::LoadError;

/// What a panic throws.
type Payload = Box<dyn Any + Send>;

/// The text of a caught panic.
pub(crate) fn panic_message(panic: Payload) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    discard(panic);
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Says that something panicked. A log that nobody reads takes no arguments, so the payload goes first.
pub(crate) fn log_panic(what: &str, panic: Payload) {
    let message = panic_message(panic);
    error!("{what} panicked: {message}");
}

/// Drops what was thrown, which may throw again. Its name stays in stacks: `tests/leaks.txt` has it.
#[inline(never)]
fn discard(panic: Payload) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// Runs what must not take its thread down.
pub(crate) fn guarded(what: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        log_panic(what, panic);
    }
}

/// Drops a value whose own `Drop` may panic.
pub(crate) fn drop_guarded<T>(what: &str, value: T) {
    guarded(what, || drop(value));
}

/// A value whose own `Drop` may panic, wherever it is dropped. An executor ends the process where a future's drop does.
pub(crate) struct DropGuarded<T> {
    what: &'static str,
    value: Option<T>,
}

impl<T> DropGuarded<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        let value = Some(value);
        Self { what, value }
    }
}

impl<T> Deref for DropGuarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("only its drop takes it")
    }
}

impl<T> DerefMut for DropGuarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("only its drop takes it")
    }
}

impl<T> Drop for DropGuarded<T> {
    fn drop(&mut self) {
        drop_guarded(self.what, self.value.take());
    }
}

/// Runs a pipeline's code; a panic becomes an error.
pub(crate) fn caught<T>(
    phase: &'static str,
    work: impl FnOnce() -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(load_error(phase, panic)))
}

/// Awaits a pipeline's code; a panic becomes an error.
pub(crate) async fn caught_async<T>(
    phase: &'static str,
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    let result = AssertUnwindSafe(work).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(load_error(phase, panic)))
}

fn load_error(phase: &'static str, panic: Payload) -> LoadError {
    LoadError::Panicked {
        phase,
        message: panic_message(panic),
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let sync = caught::<()>("plan", || panic!("number {}", 1));
        let later = block_on(caught_async::<()>("build", async { panic!("two") }));
        assert!(
            matches!(sync, Err(LoadError::Panicked { phase: "plan", message }) if message == "number 1")
        );
        assert!(
            matches!(later, Err(LoadError::Panicked { phase: "build", message }) if message == "two")
        );
    }

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(0);
        }
    }

    #[test]
    fn a_drop_that_panics_is_survived() {
        drop_guarded("a bomb", Bomb);
    }

    #[test]
    fn a_panic_that_panics_when_it_is_dropped_is_survived() {
        guarded("a thrown bomb", || std::panic::panic_any(Bomb));
        let error = caught::<()>("plan", || std::panic::panic_any(Bomb));
        assert!(
            matches!(error, Err(LoadError::Panicked { message, .. }) if message == "a panic without a message")
        );
    }
}
