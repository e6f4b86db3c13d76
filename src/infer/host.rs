//! [`Host`]: the model that a job was handed to.

use crate::{
    LoadError,
    device::DeviceHandle,
    lifeline::{Lifeline, Watch},
};

/// A model that takes jobs, as they see it.
#[derive(Clone)]
pub(crate) struct Host {
    /// Cut by an unload, and when the app ends.
    load: Watch,
    /// Cut when the model is parked.
    session: Watch,
    device: DeviceHandle,
}

impl Host {
    /// Makes the host of a load, and what its first jobs end with.
    pub(crate) fn new(load: Watch, device: DeviceHandle) -> (Lifeline, Self) {
        let (lifeline, session) = Lifeline::new();
        let host = Self {
            load,
            session,
            device,
        };
        (lifeline, host)
    }

    /// Returns what the next jobs end with.
    pub(crate) fn begin_session(&mut self) -> Lifeline {
        let (lifeline, session) = Lifeline::new();
        self.session = session;
        lifeline
    }

    pub(super) fn session(&self) -> &Watch {
        &self.session
    }

    /// Why the model is gone, where nobody has let go of it.
    pub(super) fn loss(&self) -> Option<LoadError> {
        let is_let_go = self.load.is_cut() || self.session.is_cut();
        let reason = || self.device.unusable().unwrap_or(LoadError::DeviceLost);
        (!is_let_go).then(reason)
    }
}
