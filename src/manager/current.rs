//! [`Current`]: the load at hand, and then the model that it became.

use std::sync::Arc;

use bevy::platform::time::Instant;

use crate::{infer::JobId, loader::Gone, mailbox::Built, memory::Account};

/// What the workers have said of it, and how it leaves.
#[derive(Default)]
pub(super) struct Current {
    /// What its workers know it by.
    pub(super) generation: u64,
    /// It is ready.
    pub(super) built: Option<Built>,
    /// It has ended, and its memory is back.
    pub(super) gone: Option<Box<Gone>>,
    pub(super) loading_since: Option<Instant>,
    /// It goes because the game said so: its jobs end with it.
    pub(super) leaves_for_good: bool,
    /// It is to go: jobs that come after this one are for the next model.
    pub(super) leaves_from: Option<JobId>,
    /// It is being parked.
    pub(super) parking: Option<Arc<Account>>,
}
