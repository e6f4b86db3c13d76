//! The settings that all benches use: what loads fast is what spares the frame.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{env, time::Duration};

use bevy::prelude::*;
use bevy_candle::{CandlePlugin, DeviceChoice};

/// The CPU, unless `BENCH_DEVICE` is `cuda`.
pub fn device() -> DeviceChoice {
    match env::var("BENCH_DEVICE").as_deref() {
        Ok("cuda") => DeviceChoice::Cuda(0),
        _ => DeviceChoice::Cpu,
    }
}

/// Those of a game at 60 Hz.
pub fn settings() -> CandlePlugin {
    CandlePlugin {
        device: device(),
        frame_target: Some(Duration::from_millis(16)),
        ..default()
    }
}
