//! Checks that need heaps in which no other test's threads are at work.

use std::{any::type_name, env, process::Command, thread};

/// Set in a process that runs one test alone.
const ALONE: &str = "BEVY_CANDLE_TEST_ALONE";

/// Runs a test's check in a process of its own, on a thread whose heap is another than the first one.
pub(super) fn apart<F: FnOnce() + Send + 'static>(check: F) {
    apart_with((ALONE, "1"), check);
}

/// The same, with a variable that the C library reads when a process starts.
pub(super) fn apart_with<F: FnOnce() + Send + 'static>(setting: (&str, &str), check: F) {
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
        .envs([(ALONE, "1"), setting])
        .output()
        .expect("a program that runs");
    let [said, failed] =
        [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let passed = run.status.success() && said.contains("test result: ok. 1 passed");
    assert!(passed, "{test}: {said}{failed}");
}
