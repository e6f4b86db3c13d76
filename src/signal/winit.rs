//! News wakes winit's event loop, unless the game has said how it is woken.

use bevy::{
    prelude::*,
    winit::{EventLoopProxyWrapper, WinitUserEvent},
};

use super::WakeUp;

pub(crate) fn wake_event_loop(
    wake_up: Res<WakeUp>,
    event_loop: Option<Res<EventLoopProxyWrapper>>,
) {
    let Some(event_loop) = event_loop else { return };
    let event_loop = (**event_loop).clone();
    // Refused by an event loop that has ended.
    wake_up.set(move || _ = event_loop.send_event(WinitUserEvent::WakeUp));
}
