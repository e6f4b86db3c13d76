//! [`FakeModel`]: what a fake pipeline is to do, and what it did.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

use bevy::platform::time::Instant;

use super::Gate;
use crate::{LoadError, ModelFiles, ModelSource, device::on_device_thread};

/// A place in a model's life where a script can stop it, fail or panic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Place {
    /// The configuration is read.
    Plan,
    /// Weights are read: at each chunk.
    Read,
    /// The pipeline is built.
    Build,
    /// The pipeline does its first work.
    WarmUp,
    /// A job runs: at each step.
    Infer,
    /// The pipeline is dropped.
    Drop,
}

/// What a fake pipeline did, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FakeEvent {
    /// What: [`Place::Build`], [`Place::WarmUp`], [`Place::Infer`] at each step, or [`Place::Drop`].
    pub place: Place,
    /// When.
    pub time: Instant,
    /// On which thread.
    pub thread: ThreadId,
    /// Whether that thread owns a device.
    pub on_device_thread: bool,
}

/// A made-up model: its size, its gates, its failures. Clones are the same model.
#[derive(Clone)]
pub struct FakeModel {
    id: String,
    script: Arc<Script>,
}

impl fmt::Debug for FakeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeModel").field(&self.id).finish()
    }
}

/// What the pipeline and the files share with the test.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) number: u64,
    pub(super) tensors: usize,
    /// Numbers in each tensor.
    pub(super) elements: usize,
    gates: HashMap<Place, Gate>,
    /// Gates that hold the thread, and not a future.
    blocks: HashMap<Place, Gate>,
    pub(super) fail: Option<Place>,
    pub(super) panic: Option<Place>,
    log: Arc<Mutex<Vec<FakeEvent>>>,
}

/// The number of a script that nobody can find yet.
const NOT_REGISTERED: u64 = 0;

/// The name of the fake configuration.
pub(super) const CONFIG: &str = "fake.json";

/// The name of the fake weights.
pub(super) const WEIGHTS: &str = "fake.safetensors";

impl FakeModel {
    /// Makes a model of four tensors of 1 MiB.
    pub fn new(id: impl Into<String>) -> Self {
        let script = Script {
            number: NOT_REGISTERED,
            tensors: 4,
            elements: 1 << 18,
            gates: HashMap::new(),
            blocks: HashMap::new(),
            fail: None,
            panic: None,
            log: Arc::default(),
        };
        Self {
            id: id.into(),
            script: script.register(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Script)) -> Self {
        let mut script = Script::clone(&self.script);
        script.number = NOT_REGISTERED;
        change(&mut script);
        self.script = script.register();
        self
    }

    /// Sets how many tensors the model has, and how many f32 numbers are in each.
    #[must_use]
    pub fn tensors(self, count: usize, elements: usize) -> Self {
        self.with(|script| (script.tensors, script.elements) = (count, elements))
    }

    /// Puts a gate somewhere. A gate in [`Place::Plan`] or [`Place::Read`] blocks a reader thread, one
    /// in [`Place::Drop`] the device thread; the others hold a future.
    #[must_use]
    pub fn gate(self, place: Place, gate: &Gate) -> Self {
        self.with(|script| drop(script.gates.insert(place, gate.clone())))
    }

    /// Makes the pipeline one that does not await: in [`Place::Build`], [`Place::WarmUp`] or [`Place::Infer`] the
    /// gate holds the device thread itself.
    #[must_use]
    pub fn block_in(self, place: Place, gate: &Gate) -> Self {
        self.with(|script| drop(script.blocks.insert(place, gate.clone())))
    }

    /// Puts a gate before each chunk of weights.
    #[must_use]
    pub fn gate_reads(self, gate: &Gate) -> Self {
        self.gate(Place::Read, gate)
    }

    /// Puts a gate before each step of a job.
    #[must_use]
    pub fn gate_steps(self, gate: &Gate) -> Self {
        self.gate(Place::Infer, gate)
    }

    /// Makes the model fail somewhere, the same way each time. [`Place::Drop`] cannot fail.
    #[must_use]
    pub fn fail_in(self, place: Place) -> Self {
        self.with(|script| script.fail = Some(place))
    }

    /// Makes the model panic somewhere, the same way each time.
    #[must_use]
    pub fn panic_in(self, place: Place) -> Self {
        self.with(|script| script.panic = Some(place))
    }

    /// Returns what a manager loads.
    pub fn source(&self) -> ModelSource {
        ModelSource::files(self.id.clone(), self.files())
    }

    /// Returns the model's files, to put something between them and the loader; [`ModelSource::files`] makes a
    /// source of what comes out.
    pub fn files(&self) -> Arc<dyn ModelFiles> {
        Arc::new(FakeFiles::new(self.script.clone()))
    }

    /// Returns the bytes of all weights, as f32.
    pub fn bytes(&self) -> u64 {
        (self.script.tensors * self.script.elements * size_of::<f32>()) as u64
    }

    /// Returns what its pipelines did so far.
    pub fn log(&self) -> Vec<FakeEvent> {
        self.script.log().clone()
    }
}

impl Script {
    /// Makes the script known under a number of its own, which is what the fake configuration holds.
    fn register(mut self) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(NOT_REGISTERED + 1);
        self.number = NEXT.fetch_add(1, Ordering::Relaxed);
        let script = Arc::new(self);
        known().insert(script.number, Arc::downgrade(&script));
        script
    }

    pub(super) fn find(number: u64) -> Option<Arc<Self>> {
        known().get(&number).and_then(Weak::upgrade)
    }

    fn log(&self) -> MutexGuard<'_, Vec<FakeEvent>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, place: Place) {
        let (thread, on_device_thread) = (thread::current().id(), on_device_thread());
        let time = Instant::now();
        self.log().push(FakeEvent {
            place,
            time,
            thread,
            on_device_thread,
        });
    }

    pub(super) fn gate_at(&self, place: Place) -> Option<&Gate> {
        self.gates.get(&place)
    }

    /// Holds the thread where the script says so.
    pub(super) fn block(&self, place: Place) {
        if let Some(gate) = self.blocks.get(&place) {
            gate.pass_blocking();
        }
    }

    /// Panics or fails where the script says so.
    pub(super) fn act(&self, place: Place) -> Result<(), LoadError> {
        assert!(self.panic != Some(place), "scripted panic in {place:?}");
        if self.fail == Some(place) {
            return Err(LoadError::build(format!("scripted failure in {place:?}")));
        }
        Ok(())
    }
}

/// A test that makes many models keeps none of them.
impl Drop for Script {
    fn drop(&mut self) {
        known().remove(&self.number);
    }
}

fn known() -> MutexGuard<'static, HashMap<u64, Weak<Script>>> {
    static KNOWN: OnceLock<Mutex<HashMap<u64, Weak<Script>>>> = OnceLock::new();
    KNOWN
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Files that take no memory: the weights are all zero.
struct FakeFiles {
    script: Arc<Script>,
    config: Vec<u8>,
    header: Vec<u8>,
}

impl FakeFiles {
    fn new(script: Arc<Script>) -> Self {
        let config = format!(r#"{{"script": {}}}"#, script.number).into_bytes();
        let bytes = script.elements * size_of::<f32>();
        let tensor = |i: usize| {
            let (elements, start, end) = (script.elements, i * bytes, (i + 1) * bytes);
            format!(
                r#""tensor.{i}":{{"dtype":"F32","shape":[{elements}],"data_offsets":[{start},{end}]}}"#
            )
        };
        let json = format!(
            "{{{}}}",
            (0..script.tensors)
                .map(tensor)
                .collect::<Vec<_>>()
                .join(",")
        );
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json.into_bytes());
        Self {
            script,
            config,
            header,
        }
    }

    fn file(&self, name: &str) -> Result<&[u8], LoadError> {
        match name {
            CONFIG => Ok(&self.config),
            WEIGHTS => Ok(&self.header),
            _ => Err(LoadError::FileMissing {
                file: name.into(),
                folder: "a fake model".into(),
            }),
        }
    }
}

impl ModelFiles for FakeFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        Ok(vec![CONFIG.into(), WEIGHTS.into()])
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        let weights = (self.script.tensors * self.script.elements * size_of::<f32>()) as u64;
        let zeros = if name == WEIGHTS { weights } else { 0 };
        Ok(self.file(name)?.len() as u64 + zeros)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let start = offset as usize;
        let bytes = self.file(name)?;
        if let Some(rest) = bytes.get(start..start + buf.len()) {
            buf.copy_from_slice(rest);
            return Ok(());
        }
        if let Some(gate) = self.script.gate_at(Place::Read) {
            gate.pass_blocking();
        }
        self.script.act(Place::Read)?;
        buf.fill(0);
        Ok(())
    }
}
