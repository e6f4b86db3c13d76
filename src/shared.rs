//! [`Shared`]: what the apps of a process have in common, such as the thread of a device.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What the apps of a process share: made by the first, gone with the last.
pub(crate) struct Shared<K, T>(Mutex<Vec<(K, Weak<T>)>>);

impl<K: PartialEq, T> Shared<K, T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the living one, or makes it where there is none that works. One that does not work is retired: it may be
    /// its last holder who looks, and its drop may join threads.
    pub(crate) fn get<E>(
        &self,
        key: K,
        works: impl Fn(&T) -> bool,
        retire: impl FnOnce(Arc<T>),
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, weak)| weak.strong_count() > 0);
        let found = known.iter().position(|(other, _)| *other == key);
        match found.and_then(|found| known[found].1.upgrade()) {
            Some(living) if works(&living) => return Ok(living),
            Some(dead) => retire(dead),
            None => {}
        }
        let made = Arc::new(make()?);
        known.retain(|(other, _)| *other != key);
        known.push((key, Arc::downgrade(&made)));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_made_once_and_gone_with_the_last() {
        static SHARED: Shared<u8, u32> = Shared::new();
        let get = |key, make| SHARED.get(key, |_| true, drop, || make);
        let first = get(1, Ok(7)).expect("made");
        let same = get(1, Err(())).expect("found");
        assert_eq!(*same, 7);
        assert!(get(2, Err(())).is_err(), "another key is another thing");
        drop((first, same));
        assert!(get(1, Err(())).is_err(), "it is gone with the last");
    }

    #[test]
    fn what_does_not_work_any_more_is_made_anew() {
        static SHARED: Shared<u8, u32> = Shared::new();
        let works = |value: &u32| *value != 7;
        let broken = SHARED.get(1, works, drop, || Ok::<_, ()>(7)).expect("made");
        assert!(SHARED.get(1, works, drop, || Err(())).is_err());
        let fresh = SHARED.get(1, works, drop, || Ok::<_, ()>(8)).expect("made");
        let same = SHARED.get(1, works, drop, || Err(())).expect("found");
        assert_eq!((*broken, *fresh, *same), (7, 8, 8));
    }
}
