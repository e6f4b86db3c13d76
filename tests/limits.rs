//! A system that refuses: no thread can be started, or no memory is given. The model fails with a reason, and
//! loads when there is room again.
//!
//! One test, in steps: the limit is the process's.

#![cfg(target_os = "linux")]

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, run_until_state},
};

/// A limit on the process's addresses, taken back when it is dropped.
struct Limit(libc::rlimit);

impl Limit {
    /// Leaves `room` bytes more than are in use.
    fn new(room: u64) -> Self {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux counts pages");
        let pages = pages.split(' ').next().and_then(|size| size.parse().ok());
        let in_use: u64 = pages.map(|pages: u64| pages * page_size()).expect("a size");
        let before = get();
        set(libc::rlimit {
            rlim_cur: in_use + room,
            ..before
        });
        Self(before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        set(self.0);
    }
}

fn page_size() -> u64 {
    #[expect(unsafe_code, reason = "the page size has no safe wrapper")]
    // SAFETY: the call reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    size.try_into().expect("a size is positive")
}

fn get() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    #[expect(unsafe_code, reason = "limits have no safe wrapper")]
    // SAFETY: the pointer is valid for one `rlimit`, which the call writes.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    assert_eq!(result, 0);
    limit
}

fn set(limit: libc::rlimit) {
    #[expect(unsafe_code, reason = "limits have no safe wrapper")]
    // SAFETY: the pointer is valid for one `rlimit`, which the call reads.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0);
}

fn app() -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(1 << 30),
            ..default()
        },
        ModelPlugin::<Fake>::default(),
    ));
    app.update();
    app
}

fn load(app: &mut App, model: &FakeModel) {
    let source = model.source();
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(source);
    run_until_state::<Fake>(app, ModelState::Loading);
}

#[track_caller]
fn failed(app: &mut App) -> std::sync::Arc<LoadError> {
    run_until_state::<Fake>(app, ModelState::Failed);
    assert_eq!(app.world().resource::<ResourceManager>().in_use(), 0);
    let manager = app.world().resource::<ModelManager<Fake>>();
    manager.last_error.clone().expect("a reason")
}

#[track_caller]
fn works(app: &mut App, model: &FakeModel) {
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .load(model.source());
    run_until_state::<Fake>(app, ModelState::Loaded);
}

#[test]
fn a_system_that_refuses_fails_a_model_and_nothing_else() {
    // Its threads start with the first load: nobody has called `finish`.
    let mut app = app();
    threads_that_cannot_be_started(&mut app);
    memory_that_is_refused(&mut app);
}

/// A thread's stack is two mebibytes.
fn threads_that_cannot_be_started(app: &mut App) {
    let model = FakeModel::new("small").tensors(1, 1 << 10);
    let limit = Limit::new(1 << 20);
    load(app, &model);
    let error = failed(app);
    drop(limit);
    assert!(matches!(*error, LoadError::Threads { .. }), "{error:?}");
    works(app, &FakeModel::new("good"));
}

/// Forty tensors of 8 MiB where there is room for about ten.
fn memory_that_is_refused(app: &mut App) {
    let model = FakeModel::new("large").tensors(40, 2 << 20);
    app.world_mut()
        .resource_mut::<ModelManager<Fake>>()
        .unload();
    run_until_state::<Fake>(app, ModelState::Idle);
    let limit = Limit::new(80 << 20);
    load(app, &model);
    let error = failed(app);
    drop(limit);
    assert!(
        matches!(&*error, LoadError::OutOfMemory { tensor, bytes }
            if tensor.starts_with("tensor.") && *bytes == 8 << 20),
        "{error:?}"
    );
    works(app, &FakeModel::new("good"));
    works(app, &FakeModel::new("after all").tensors(40, 2 << 20));
}
