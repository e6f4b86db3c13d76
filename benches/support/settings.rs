//! The settings that all benches use: what loads fast is what spares the frame.

use std::time::Duration;

use bevy::prelude::*;
use bevy_candle::CandlePlugin;

/// Those of a game at 60 Hz.
pub fn settings() -> CandlePlugin {
    CandlePlugin {
        frame_target: Some(Duration::from_millis(16)),
        ..default()
    }
}
