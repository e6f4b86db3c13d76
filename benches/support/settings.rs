//! The settings that all benches use: what loads fast is what spares the frame.

use bevy_candle::CandlePlugin;

/// Those that a game has without a choice of its own.
pub fn settings() -> CandlePlugin {
    CandlePlugin::default()
}
