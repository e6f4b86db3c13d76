//! The end of the app: no frame follows, so the remaining edges are written at once.

use std::any::type_name;

use bevy::{platform::time::Instant, prelude::*};
use tracing::warn;

use super::ModelManager;
use crate::{ModelTransition, Pipeline, schedule::ShutdownDeadline};

/// Cancels loads and jobs, and lets go of models. Nothing waits yet, so that all kinds end side by side.
pub(crate) fn let_go<P: Pipeline>(manager: Option<ResMut<ModelManager<P>>>) {
    let Some(mut manager) = manager else { return };
    manager.closed = true;
    manager.pipeline.let_go();
    manager.thin_out_parked();
}

/// Waits for the last byte, at most until the deadline that all kinds share.
pub(crate) fn wait_for_memory<P: Pipeline>(
    manager: Option<ResMut<ModelManager<P>>>,
    deadline: Res<ShutdownDeadline>,
    mut transitions: MessageWriter<ModelTransition<P>>,
) {
    let Some(mut manager) = manager else { return };
    let released = manager.wait_until_gone(deadline.0);
    if !released {
        warn!(
            "{}: the model was not released in time, and is left behind",
            type_name::<P>()
        );
    }
    let mut from = manager.machine.state();
    for (to, reason) in manager.machine.shut_down(released) {
        transitions.write(manager.enter((from, to), reason));
        from = to;
    }
}

impl<P: Pipeline> ModelManager<P> {
    /// Returns whether no memory is held any more.
    fn wait_until_gone(&mut self, deadline: Instant) -> bool {
        while !self.alive.is_empty() {
            let Some(event) = self.received.next_before(deadline) else {
                return false;
            };
            let end = self.take_in(event);
            self.late_ends.extend(end);
        }
        true
    }
}
