//! Whatever breaks, the model fails with a reason, its memory is back, and the next load works.

mod support {
    pub mod kinds;
}

use std::{fs, io, path::Path, sync::Arc};

use TransitionReason as R;
use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{FakeModel, FakeRequest, Gate, Place, run_until, run_until_state},
};
use support::kinds::*;

/// Files that break where a byte of the weights' file is read.
struct Faulty {
    files: Arc<dyn ModelFiles>,
    breaks_at: u64,
    error: fn(&str) -> LoadError,
}

impl ModelFiles for Faulty {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let read = offset..offset + buf.len() as u64;
        if name.ends_with(".safetensors") && read.contains(&self.breaks_at) {
            return Err((self.error)(name));
        }
        self.files.read_at(name, offset, buf)
    }
}

/// A model of 12 MiB whose file breaks at a byte.
fn faulty(breaks_at: u64, error: fn(&str) -> LoadError) -> ModelSource {
    let files = FakeModel::new("faulty").tensors(4, 3 << 18).files();
    let faulty = Faulty {
        files,
        breaks_at,
        error,
    };
    ModelSource::files("faulty", Arc::new(faulty))
}

fn io_error(kind: io::ErrorKind) -> impl Fn(&str) -> LoadError {
    move |name| LoadError::Io {
        file: name.into(),
        source: kind.into(),
    }
}

/// Fails, with everything back, and then loads and runs a good model.
#[track_caller]
fn assert_fails_and_recovers(app: &mut App, source: ModelSource) -> Arc<LoadError> {
    manager::<0>(app).load(source);
    run_until_kind::<0>(app, ModelState::Loading);
    run_until_kind::<0>(app, ModelState::Failed);
    assert_eq!(in_use(app), 0);
    let error = manager::<0>(app).last_error.clone();
    assert_works(app);
    error.expect("a failed model has a reason")
}

#[track_caller]
fn assert_works(app: &mut App) {
    load::<0>(app, &FakeModel::new("good"));
    let job = job::<0>(app, steps(1));
    assert!(ended(app, job).is_ok());
}

#[test]
fn a_disk_error_at_any_byte_fails_the_load() {
    let mut app = app(64 * MIB);
    let bytes = 12 * MIB;
    let error = |name: &str| io_error(io::ErrorKind::Other)(name);
    // The header's length, the header, the first byte, both sides of each end of a chunk, and the last byte.
    let chunks = (1..12).flat_map(|chunk| [chunk * MIB - 1, chunk * MIB + 400]);
    for breaks_at in [0, 8, 400].into_iter().chain(chunks).chain([bytes]) {
        let failed = assert_fails_and_recovers(&mut app, faulty(breaks_at, error));
        assert!(
            matches!(&*failed, LoadError::Io { file, .. } if file == "fake.safetensors"),
            "{failed:?}"
        );
    }
}

#[test]
fn a_permission_that_is_lost_on_the_way_fails_the_load() {
    let mut app = app(64 * MIB);
    let lost = |name: &str| io_error(io::ErrorKind::PermissionDenied)(name);
    let failed = assert_fails_and_recovers(&mut app, faulty(5 * MIB, lost));
    let message = ErrorChain(&*failed).to_string();
    assert!(message.contains("permission denied"), "{message}");
}

#[test]
fn a_pipeline_that_panics_anywhere_on_the_way_fails_the_load() {
    let mut app = app(64 * MIB);
    for (place, name) in [
        (Place::Plan, "plan"),
        (Place::Read, "read"),
        (Place::Build, "build"),
        (Place::WarmUp, "warm_up"),
    ] {
        let model = FakeModel::new(name).panic_in(place);
        let failed = assert_fails_and_recovers(&mut app, model.source());
        assert!(
            matches!(&*failed, LoadError::Panicked { phase, message }
                if *phase == name && message.contains("scripted")),
            "{failed:?}"
        );
    }
}

#[test]
fn a_pipeline_that_panics_in_a_job_goes_on_with_the_next() {
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &FakeModel::new("a").panic_in(Place::Infer));
    for _ in 0..3 {
        let job = job::<0>(&mut app, steps(1));
        let error = ended(&mut app, job);
        assert!(matches!(error, Err(InferError::Panicked(_))), "{error:?}");
    }
    assert_eq!(in_use(&app), 4 * MIB, "no job's memory is kept");
    assert_eq!(state::<0>(app.world()), ModelState::Loaded);
}

#[test]
fn a_pipeline_that_panics_when_it_is_dropped_is_gone_all_the_same() {
    let mut app = app(64 * MIB);
    let model = FakeModel::new("a").panic_in(Place::Drop);
    load::<0>(&mut app, &model);
    manager::<0>(&mut app).unload();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_eq!(in_use(&app), 0);
    // In the middle of a load, too, whose own reason is not lost.
    let gate = Gate::closed();
    ask::<0>(&mut app, &model.gate(Place::Build, &gate));
    run_until(&mut app, "the build", |_| gate.waiting() == 1);
    manager::<0>(&mut app).cancel();
    run_until_kind::<0>(&mut app, ModelState::Idle);
    assert_works(&mut app);
}

/// It keeps its device busy, and nobody else: not the frames, and not the books.
#[test]
fn a_pipeline_that_never_awaits_in_a_job_is_waited_for_and_the_frames_go_on() {
    let gate = Gate::closed();
    let a = FakeModel::new("a").block_in(Place::Infer, &gate);
    let mut app = app(64 * MIB);
    load::<0>(&mut app, &a);
    let endless = job::<0>(&mut app, steps(u32::MAX));
    run_until(&mut app, "the job", |_| gate.waiting() == 1);
    manager::<0>(&mut app).unload();
    ask::<1>(&mut app, &FakeModel::new("b"));
    frames(&mut app, 100);
    assert_eq!(state::<0>(app.world()), ModelState::Unloading);
    assert!(end(app.world(), endless).is_none());
    gate.open();
    assert!(matches!(
        ended(&mut app, endless),
        Err(InferError::Unloaded)
    ));
    run_until_kind::<0>(&mut app, ModelState::Idle);
    run_until_kind::<1>(&mut app, ModelState::Loaded);
}

#[test]
fn a_pipeline_that_never_awaits_while_it_is_built_is_cancelled_when_it_lets_go() {
    for place in [Place::Build, Place::WarmUp] {
        let gate = Gate::closed();
        let a = FakeModel::new("a").block_in(place, &gate);
        let mut app = app(64 * MIB);
        ask::<0>(&mut app, &a);
        run_until(&mut app, "the build", |_| gate.waiting() == 1);
        manager::<0>(&mut app).cancel();
        frames(&mut app, 100);
        assert_eq!(state::<0>(app.world()), ModelState::Loading);
        gate.open();
        run_until_kind::<0>(&mut app, ModelState::Idle);
        assert_eq!(reasons::<0>(&app), [R::LoadRequested, R::LoadCancelled]);
        assert_works(&mut app);
    }
}

#[test]
fn a_model_that_the_system_has_no_memory_for_is_refused_before_it_is_read() {
    let mut app = app(1 << 60);
    let reads = Gate::closed();
    // 32 TiB.
    let model = FakeModel::new("huge")
        .tensors(1, 1 << 43)
        .gate_reads(&reads);
    let failed = assert_fails_and_recovers(&mut app, model.source());
    assert!(
        matches!(*failed, LoadError::NotEnoughMemory { needed, available }
            if needed == 1 << 45 && available < needed),
        "{failed:?}"
    );
}

#[test]
fn nobody_makes_room_for_a_model_that_the_system_has_no_memory_for() {
    let mut app = app(1 << 45);
    let other = FakeModel::new("other").tensors(1, 1 << 10);
    ask::<1>(&mut app, &other);
    run_until_kind::<1>(&mut app, ModelState::Loaded);
    // 32 TiB: with the other one they exceed the budget.
    ask::<0>(&mut app, &FakeModel::new("huge").tensors(1, 1 << 43));
    run_until_kind::<0>(&mut app, ModelState::Failed);
    frames(&mut app, 10);
    assert_eq!(state::<1>(app.world()), ModelState::Loaded);
}

/// `tools/container.sh 512M cargo test --test faults` runs this in a container with that much memory.
#[cfg(target_os = "linux")]
#[test]
fn a_container_has_the_memory_that_its_limit_says() {
    let said = std::env::var("CONTAINER_BYTES").ok();
    let limit: u64 = said.map_or(1 << 60, |bytes| bytes.parse().expect("bytes"));
    let mut app = app(1 << 60);
    // As much as the limit: the process itself has a part of it already.
    let elements = limit as usize / size_of::<f32>();
    ask::<0>(&mut app, &FakeModel::new("large").tensors(1, elements));
    run_until_kind::<0>(&mut app, ModelState::Failed);
    let error = manager::<0>(&mut app).last_error.clone();
    assert!(
        matches!(error.as_deref(), Some(LoadError::NotEnoughMemory { available, .. })
            if *available < limit),
        "{error:?}"
    );
}

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// A load from a folder that is planned and waits for memory, so that its files can change meanwhile.
struct Planned {
    app: App,
    folder: tempfile::TempDir,
    gate: Gate,
}

impl Planned {
    fn new() -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grey");
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in [
            "model_index.json",
            "unet/config.json",
            "scheduler/scheduler_config.json",
            WEIGHTS,
        ] {
            let target = folder.path().join(name);
            fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
            fs::copy(fixture.join(name), target).expect("a copy");
        }
        let gate = Gate::closed();
        let mut app = app(4 * MIB);
        app.add_plugins(ModelPlugin::<DdpmPipeline>::default());
        load::<0>(&mut app, &FakeModel::new("a").gate_steps(&gate));
        job::<0>(&mut app, steps(1));
        run_until(&mut app, "the job", |_| gate.waiting() == 1);
        let mut planned = Self { app, folder, gate };
        planned.load();
        run_until(&mut planned.app, "a load that waits", |world| {
            world.resource::<ResourceManager>().devices()[0].waiting > 0
        });
        planned
    }

    fn weights(&self) -> std::path::PathBuf {
        self.folder.path().join(WEIGHTS)
    }

    fn manager(&mut self) -> Mut<'_, ModelManager<DdpmPipeline>> {
        self.app.world_mut().resource_mut()
    }

    fn load(&mut self) {
        let folder = self.folder.path().to_owned();
        self.manager().load(folder);
    }

    fn run_until(&mut self, state: ModelState) {
        run_until_state::<DdpmPipeline>(&mut self.app, state);
    }
}

#[test]
fn a_file_that_is_cut_short_during_the_load_fails_it() {
    let mut planned = Planned::new();
    let whole = fs::read(planned.weights()).expect("weights");
    let file = fs::File::options().write(true).open(planned.weights());
    file.and_then(|file| file.set_len(whole.len() as u64 / 2))
        .expect("a shorter file");
    planned.gate.open();
    planned.run_until(ModelState::Failed);
    let error = planned.manager().last_error.clone().expect("a reason");
    assert!(
        matches!(&*error, LoadError::CutShort { file, found, .. }
            if file == WEIGHTS && *found == whole.len() as u64 / 2),
        "{error:?}"
    );
    fs::write(planned.weights(), whole).expect("a whole file");
    planned.manager().reload();
    planned.run_until(ModelState::Loaded);
}

/// A download that replaces a file by another one, as downloads do, does not touch the load that began before.
#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_during_the_load_is_read_as_it_was() {
    let mut planned = Planned::new();
    let new = planned.folder.path().join("new");
    fs::write(&new, "another model").expect("a file");
    fs::rename(new, planned.weights()).expect("a replaced file");
    planned.gate.open();
    planned.run_until(ModelState::Loaded);
    planned.manager().reload();
    planned.run_until(ModelState::Failed);
    let error = planned.manager().last_error.clone().expect("a reason");
    assert!(matches!(*error, LoadError::Header { .. }), "{error:?}");
}

#[test]
fn a_job_that_fails_and_one_that_panics_give_back_what_they_claimed() {
    let mut app = app(8 * MIB);
    load::<0>(&mut app, &FakeModel::new("a"));
    let whole = FakeRequest {
        memory: 4 * MIB,
        ..default()
    };
    for (panic, fail) in [(true, false), (false, true), (false, false)] {
        let request = FakeRequest {
            panic,
            fail,
            ..whole
        };
        let job = job::<0>(&mut app, request);
        assert_eq!(ended(&mut app, job).is_ok(), !panic && !fail);
    }
}
