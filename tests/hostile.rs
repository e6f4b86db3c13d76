//! A folder from anywhere: each key of each configuration with values that nobody should have. The plan ends, with an
//! error or without, does not panic, and takes little memory.
//!
//! One test, in steps: the counters are the process's.

mod support {
    pub mod allocator;
}

use std::{collections::BTreeMap, fs, panic::catch_unwind, path::Path};

use bevy_candle::{MemoryFiles, prelude::*};
use serde_json::{Value, json};
use support::allocator::{self, begin_peak, peak};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

const CONFIGURATIONS: [&str; 3] = [
    "model_index.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
];

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// What planning may take in large blocks. The model itself has a hundredth of it.
const BOUND: i64 = 64 << 20;

type Files = BTreeMap<String, Vec<u8>>;

fn folder() -> Files {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
    let names = CONFIGURATIONS.into_iter().chain([WEIGHTS]);
    names
        .map(|name| (name.into(), fs::read(fixture.join(name)).expect("a file")))
        .collect()
}

fn absurd() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(3),
        json!(1_u64 << 31),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-1e-308),
        json!(0.5),
        json!(""),
        json!("NaN"),
        json!("../../../etc/passwd"),
        json!("x".repeat(100_000)),
        json!([]),
        json!([0]),
        json!([1_u64 << 31, 1_u64 << 31]),
        json!(vec![1; 100_000]),
        json!([[]]),
        json!({}),
        json!({ "a": { "b": [] } }),
    ]
}

/// Plans, without a panic and within the bound. Returns whether the folder is taken.
#[track_caller]
fn plans(files: &Files, what: &str) -> bool {
    let files = MemoryFiles::new(files.clone());
    let before = begin_peak();
    let planned = catch_unwind(|| DdpmPipeline::plan(&files).map(drop));
    let taken = peak() - before;
    assert!(taken < BOUND, "{what}: {taken} bytes");
    match planned {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            assert!(!ErrorChain(&error).to_string().is_empty());
            false
        }
        Err(_) => panic!("{what}: the plan panicked"),
    }
}

#[test]
fn whatever_a_configuration_says_the_plan_ends() {
    assert!(plans(&folder(), "the good folder"));
    each_key_with_each_absurd_value();
    each_key_left_out_or_unknown();
    bytes_that_are_no_json();
    weights_that_are_cut_anywhere();
}

fn each_key_with_each_absurd_value() {
    let mut refused = 0;
    for name in CONFIGURATIONS {
        let good: Value = serde_json::from_slice(&folder()[name]).expect("JSON");
        let keys = good.as_object().expect("an object").keys().cloned();
        for key in keys {
            for value in absurd() {
                let mut bad = good.clone();
                let shown: String = value.to_string().chars().take(50).collect();
                bad[&key] = value;
                let mut files = folder();
                files.insert(name.into(), bad.to_string().into_bytes());
                let what = format!("{name}: {key} is {shown}");
                refused += u32::from(!plans(&files, &what));
            }
        }
    }
    assert!(refused > 300, "only {refused} were refused");
}

fn each_key_left_out_or_unknown() {
    for name in CONFIGURATIONS {
        let good: Value = serde_json::from_slice(&folder()[name]).expect("JSON");
        for key in good.as_object().expect("an object").keys() {
            let mut bad = good.clone();
            let object = bad.as_object_mut().expect("an object");
            let value = object.remove(key).expect("it was there");
            let mut files = folder();
            files.insert(name.into(), bad.to_string().into_bytes());
            plans(&files, &format!("{name}: without {key}"));
            bad[format!("{key}\u{0}")] = value;
            files.insert(name.into(), bad.to_string().into_bytes());
            plans(&files, &format!("{name}: an unknown {key}"));
        }
    }
}

fn bytes_that_are_no_json() {
    let broken: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\xff\xfe",
        b"NaN",
        b"{\"sample_size\": NaN}",
        b"{\"sample_size\": 1e999}",
        &b"[".repeat(1 << 20),
        &b"{\"a\":".repeat(1 << 18),
    ];
    for name in CONFIGURATIONS {
        for bytes in broken {
            let mut files = folder();
            files.insert(name.into(), bytes.to_vec());
            assert!(!plans(&files, name));
        }
    }
}

fn weights_that_are_cut_anywhere() {
    let whole = folder()[WEIGHTS].clone();
    for length in (0..whole.len())
        .step_by(997)
        .chain([7, 8, 9, whole.len() - 1])
    {
        let mut files = folder();
        files.insert(WEIGHTS.into(), whole[..length].to_vec());
        assert!(!plans(&files, &format!("{length} bytes of weights")));
    }
}
