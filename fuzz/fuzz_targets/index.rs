//! The index of weights in several files: any bytes, beside two good files.

#![no_main]

use bevy_candle::{MemoryFiles, Plan};
use fuzz as _;
use libfuzzer_sys::fuzz_target;

/// A file with one tensor of one byte.
fn shard(tensor: &str) -> Vec<u8> {
    let header = format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.push(0);
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let files = MemoryFiles::new([
        ("m.safetensors.index.json", bytes.to_vec()),
        ("one.safetensors", shard("a")),
        ("two.safetensors", shard("b")),
    ]);
    let _ = Plan::new(()).weights(&files, "m.safetensors");
});
