//! The settings that all benches use: what loads fast is what spares the frame.

use std::{env, time::Duration};

use bevy::prelude::*;
use bevy_candle::{CandlePlugin, DeviceChoice};

/// Those of a game at 60 Hz. On the CPU, unless `BENCH_DEVICE` is `cuda`.
pub fn settings() -> CandlePlugin {
    let device = match env::var("BENCH_DEVICE").as_deref() {
        Ok("cuda") => DeviceChoice::Cuda(0),
        _ => DeviceChoice::Cpu,
    };
    CandlePlugin {
        device,
        frame_target: Some(Duration::from_millis(16)),
        ..default()
    }
}
