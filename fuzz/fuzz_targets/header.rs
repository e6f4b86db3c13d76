//! The header of a weight file: any bytes.

#![no_main]

use bevy_candle::{MemoryFiles, Plan};
use fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let files = MemoryFiles::new([("m.safetensors", bytes.to_vec())]);
    let _ = Plan::new(()).weights(&files, "m.safetensors");
});
