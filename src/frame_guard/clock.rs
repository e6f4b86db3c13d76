//! The guard's clock: times as numbers that an atomic holds.

use std::{sync::LazyLock, time::Duration};

use bevy::platform::time::Instant;

/// It starts when it is first read.
pub(super) static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn nanos(time: Instant) -> u64 {
    time.saturating_duration_since(*START).as_nanos() as u64
}

pub(super) fn time(nanos: u64) -> Instant {
    *START + Duration::from_nanos(nanos)
}
