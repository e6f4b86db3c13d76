//! Checks that need heaps in which no other test's threads are at work.

use std::{any::type_name, env, process::Command, thread};

/// Set in a process that runs one test alone.
const ALONE: &str = "BEVY_CANDLE_TEST_ALONE";

/// Runs a test's check in a process of its own, on a thread whose heap is another than the first one.
pub(super) fn apart<F: FnOnce() + Send + 'static>(check: F) {
    apart_with(&[], check);
}

/// The same, with variables that the C library reads when a process starts.
pub(super) fn apart_with<F: FnOnce() + Send + 'static>(settings: &[(&str, &str)], check: F) {
    if env::var_os(ALONE).is_some() {
        let checked = thread::spawn(check).join();
        return checked.expect("a check that passes");
    }
    // The closure's name begins with the test's.
    let name = type_name::<F>().split("::{{closure}}").next();
    let (_, test) = name
        .and_then(|name| name.split_once("::"))
        .expect("a path in this crate");
    let program = env::current_exe().expect("a test has a program");
    let run = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .envs(settings.iter().copied())
        .output()
        .expect("a program that runs");
    let [out, err] =
        [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let passed = run.status.success() && out.contains("test result: ok. 1 passed");
    assert!(passed, "{test}: {out}{err}");
}
