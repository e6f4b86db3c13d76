//! A pipeline on a CUDA device whose jobs say what is there, and what the driver's counters say.

#![allow(dead_code, reason = "each test uses a part")]

use std::{collections::BTreeMap, io::Write, panic::catch_unwind, sync::Arc};

use bevy::prelude::*;
use bevy_candle::{
    CardReport, MemoryFiles,
    candle::{
        DType, Device, Tensor,
        cuda_backend::cudarc::driver::{CudaContext, DriverError, sys::CUresult},
    },
    prelude::*,
    test_kit::{run_until, run_until_state},
};
use candle_nn::VarBuilder;

pub mod counters;

pub const MIB: u64 = 1 << 20;

/// What a pool takes from a driver at once.
pub const GRANULE: u64 = 32 * MIB;

/// Reads of a plan: the count, and the header's length and text.
pub const PLANNED: usize = 3;

/// Whether there is a device to test with; says so where there is none. What a test prints is only shown when it fails, so
/// this goes past it.
pub fn has_card() -> bool {
    let count = catch_unwind(CudaContext::device_count);
    let found = matches!(count, Ok(Ok(1..)));
    if !found {
        let _ = writeln!(std::io::stderr(), "no CUDA device");
    }
    found
}

/// Models of a few tensors.
pub struct Card {
    tensors: Vec<Tensor>,
    device: Device,
}

/// What a job is to do.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Read all weights back.
    Values,
    /// Take so many bytes for a moment.
    Take(u64),
    /// Run into an illegal instruction.
    Break,
    /// The same, and do not look at what comes of it.
    BreakUnseen,
    /// The same, and panic.
    BreakAndPanic,
    /// Leave an error behind, as a drop that fails does.
    LeaveAnError,
}

impl Pipeline for Card {
    type Config = usize;
    type Settings = ();
    type Request = Ask;
    type Partial = ();
    type Output = Vec<Vec<f32>>;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<usize>, LoadError> {
        let mut count = [0];
        files.read_at("count", 0, &mut count)?;
        Plan::new(usize::from(count[0])).weights(files, "weights.safetensors")
    }

    async fn build(
        count: usize,
        weights: VarBuilder<'static>,
        _: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let device = weights.device().clone();
        let tensor = |i: usize| weights.get_unchecked(&i.to_string());
        let tensors = (0..count).map(tensor).collect::<Result<_, _>>()?;
        Ok(Self { tensors, device })
    }

    async fn infer(&self, ask: Ask, _: Steps<Self>) -> Result<Vec<Vec<f32>>, InferError> {
        match ask {
            Ask::Values => self.values(),
            Ask::Take(bytes) => {
                Tensor::zeros(bytes as usize, DType::U8, &self.device).map(|_| Vec::new())
            }
            Ask::Break => run_into_the_ground(&self.device)
                .and_then(|()| self.device.synchronize())
                .map(|()| Vec::new()),
            Ask::BreakUnseen => run_into_the_ground(&self.device).map(|()| Vec::new()),
            Ask::BreakAndPanic => {
                let broken = run_into_the_ground(&self.device);
                panic!("on purpose: {broken:?}");
            }
            Ask::LeaveAnError => leave_an_error(&self.device).map(|()| Vec::new()),
        }
        .map_err(InferError::failed)
    }

    fn working_memory(&self, ask: &Ask) -> u64 {
        match ask {
            Ask::Take(bytes) => *bytes,
            _ => 0,
        }
    }
}

impl Card {
    fn values(&self) -> bevy_candle::candle::Result<Vec<Vec<f32>>> {
        let of = |tensor: &Tensor| {
            let on_host = tensor.to_device(&Device::Cpu)?;
            on_host.to_dtype(DType::F32)?.to_vec1()
        };
        self.tensors.iter().map(of).collect()
    }
}

/// Has cudarc put an error aside, which the next call returns in its own place.
fn leave_an_error(device: &Device) -> bevy_candle::candle::Result<()> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let error = DriverError(CUresult::CUDA_ERROR_INVALID_VALUE);
    stream.context().record_err(Err::<(), _>(error));
    Ok(())
}

/// Starts a kernel that a card cannot go on after.
fn run_into_the_ground(device: &Device) -> bevy_candle::candle::Result<()> {
    const TRAP: &str = ".version 7.0\n.target sm_70\n.address_size 64\n\
                        .visible .entry broken() {\n  trap;\n  ret;\n}\n";
    use bevy_candle::candle::cuda_backend::cudarc::driver::LaunchConfig;

    let card = device.as_cuda_device()?;
    let broken = card.get_or_load_custom_func("broken", "broken", TRAP)?;
    let mut launch = broken.builder();
    #[expect(unsafe_code, reason = "a kernel can do anything, and this one is to")]
    // SAFETY: it takes no arguments and touches no memory.
    let launched = unsafe { launch.launch(LaunchConfig::for_num_elems(1)) };
    launched.map_err(bevy_candle::candle::Error::wrap)?;
    Ok(())
}

/// The values of a tensor of such a model: whole numbers, which every format has.
pub fn values(tensor: usize, elements: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7 + tensor * 31) % 251) as f32;
    (0..elements).map(value).collect()
}

/// Makes the files of a model whose tensors have so many elements each.
pub fn files(elements: &[usize], stored: DType) -> Arc<MemoryFiles> {
    let tensor = |(i, elements): (usize, &usize)| {
        let tensor = Tensor::from_vec(values(i, *elements), *elements, &Device::Cpu);
        let tensor = tensor.and_then(|tensor| tensor.to_dtype(stored));
        (i.to_string(), tensor.expect("a tensor"))
    };
    let tensors: BTreeMap<_, _> = elements.iter().enumerate().map(tensor).collect();
    let weights = safetensors::serialize(tensors, None).expect("a file");
    Arc::new(MemoryFiles::new([
        ("count", vec![elements.len() as u8]),
        ("weights.safetensors", weights),
    ]))
}

pub fn source(id: &str, elements: &[usize]) -> ModelSource {
    ModelSource::files(id, files(elements, DType::F32))
}

/// Makes an app on the first card, with one manager.
pub fn app(budget: Option<u64>) -> App {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            device: DeviceChoice::Cuda(0),
            memory_budget: budget,
            ..default()
        },
        ModelPlugin::<Card>::default(),
    ));
    app
}

pub fn load<P: Pipeline>(app: &mut App, source: ModelSource) {
    app.world_mut()
        .resource_mut::<ModelManager<P>>()
        .load(source);
}

/// Loads a model and waits until it is loaded.
#[track_caller]
pub fn load_and_wait(app: &mut App, source: ModelSource) {
    load::<Card>(app, source);
    run_until_state::<Card>(app, ModelState::Loaded);
}

/// Unloads the model, and returns what the card says of it.
#[track_caller]
pub fn unload(app: &mut App) -> CardReport {
    app.world_mut()
        .resource_mut::<ModelManager<Card>>()
        .unload();
    run_until_state::<Card>(app, ModelState::Idle);
    last_report(app)
}

#[track_caller]
pub fn last_report(app: &App) -> CardReport {
    let report = app.world().resource::<ModelManager<Card>>().last_release;
    let report = report.expect("a release reports");
    report.card.expect("a card has counters")
}

pub fn last_error(app: &App) -> Option<Arc<LoadError>> {
    let manager = app.world().resource::<ModelManager<Card>>();
    manager.last_error.clone()
}

/// How a job has ended.
type End<P> = Result<<P as Pipeline>::Output, InferError>;

#[derive(Component)]
struct Answer<P: Pipeline>(Option<End<P>>);

/// Runs a job and waits for its end.
#[track_caller]
pub fn run<P: Pipeline>(app: &mut App, request: P::Request) -> End<P> {
    let job = ask_for::<P>(app, request);
    answer::<P>(app, job)
}

/// Begins a job.
pub fn ask_for<P: Pipeline>(app: &mut App, request: P::Request) -> Entity {
    app.world_mut()
        .spawn((Infer::<P>::new(request), Answer::<P>(None)))
        .observe(
            |mut done: On<Inferred<P>>, mut answers: Query<&mut Answer<P>>| {
                let entity = done.entity;
                if let Ok(mut answer) = answers.get_mut(entity) {
                    answer.0 = Some(done.take());
                }
            },
        )
        .id()
}

/// Waits for the end of a job.
#[track_caller]
pub fn answer<P: Pipeline>(app: &mut App, job: Entity) -> End<P> {
    run_until(app, "the job", |world| {
        let answer = world.get::<Answer<P>>(job);
        answer.is_some_and(|answer| answer.0.is_some())
    });
    let answer = app.world_mut().entity_mut(job).take::<Answer<P>>();
    answer.and_then(|answer| answer.0).expect("it has ended")
}
