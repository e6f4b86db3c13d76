//! Runs [candle](https://github.com/huggingface/candle) models inside a [Bevy](https://bevyengine.org)
//! game: load them, use them, swap them, unload them, without blocking a frame and with every byte given
//! back.
//!
//! # The life of a model
//!
//! ```text
//!   load()         read, build            jobs                 unload()        memory is back
//!  ────────► Loading ────────► Loaded ◄────────► Infer<P> … ────────► Unloading ────────► Idle
//! ```
//!
//! 1. [`ModelPlugin<P>`] adds one kind of model to the app, with a [`ModelManager<P>`] resource. `P` is a
//!    [`Pipeline`]: [`DdpmPipeline`] is one, a game may bring its own.
//! 2. [`ModelManager::load`] asks for a model. When it is read and built the [`ModelState`] is Loaded, or
//!    Failed with a [`LoadError`]; no frame waits for it.
//! 3. [`Infer<P>`] on an entity is a job. [`InferStep<P>`] and [`Inferred<P>`] are triggered there.
//! 4. [`ModelManager::unload`] asks for the memory. Idle shows when it is back. Another load parks the old model instead
//!    where [`Residency::keep_parked`] says so, and a switch back reads nothing.
//!
//! Read state as properties (`manager.current_state`, `manager.sample_size`; see [`ModelStatus`]), as a
//! Bevy state ([`StateOf<P>`]: `OnEnter`, `in_state`, `DespawnOnExit`), or as messages
//! ([`ModelTransition<P>`]). The three agree in every `Update`.
//!
//! # Putting it together
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_candle::prelude::*;
//!
//! let mut app = App::new();
//! app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()))
//!     .add_systems(Startup, |mut sprites: ResMut<ModelManager<DdpmPipeline>>| sprites.load("models/sprites"))
//!     .add_systems(OnEnter(ModelState::Loaded.of::<DdpmPipeline>()), |mut commands: Commands| {
//!         let request = DdpmRequest { class: Some(3), seed: 7, ..default() };
//!         commands.spawn(Infer::<DdpmPipeline>::new(request)).observe(show);
//!     });
//!
//! fn show(mut done: On<Inferred<DdpmPipeline>>) {
//!     match done.take() {
//!         Ok(output) => info!("{} picture(s)", output.images().len()),
//!         Err(error) => warn!("no picture: {}", ErrorChain(&error)),
//!     }
//! }
//! # app.update();
//! ```
//!
//! # What runs where
//!
//! The main thread reads no file, drops no tensor, joins no thread (but for the end of the app, with a
//! time-out) and waits for no loader. Files are read by threads named `candle-read-…`.
//! Models live on the thread of their device, for the CPU one of its pool of `candle-cpu-…`; `candle-clean`
//! gives memory back. All run below the game's priority, are shared by the apps of a process, and end with
//! the last of them. Bevy's `AsyncComputeTaskPool` only orchestrates.
//!
//! candle 0.11 has, besides, a process-wide pool of spinning threads for large element-wise and quantized
//! operations. The environment variable `CANDLE_NUM_THREADS` sizes it once; set it to 1 where a game
//! needs its cores.
//!
//! # System sets
//!
//! [`CandleSystems::Deliver`], [`Reconcile`](CandleSystems::Reconcile) and
//! [`Transition`](CandleSystems::Transition) are in `PreUpdate`, so [`Update`](bevy::prelude::Update) sees
//! a stable world. [`Release`](CandleSystems::Release) and [`Join`](CandleSystems::Join) are in
//! [`CandleShutdown`], which runs once when the app ends.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | |
//! |---|---|
//! | `test_kit` | the module `test_kit`: a scripted model, gates and a recorder for tests |
//! | `panel` | `ModelPanelPlugin`, every manager on the screen, with Bevy's UI |
//! | `winit` | results wake apps that sleep between inputs; on Linux it compiles only with Bevy's `x11` or `wayland` |
//! | `scenes` | what the scenes among the examples need: `panel`, a window and a renderer |
//! | `cuda` | CUDA devices; such a binary starts only where the CUDA libraries are |
//! | `metal` | Metal devices; type-checked, never ran |
//!
//! # More to read
//!
//! [How it works](guide::architecture), [what loads as a `DdpmPipeline`](guide::ddpm),
//! [models on a graphics card](guide::gpu), [what is promised and how it is tested](guide::reliability), and
//! [what it costs](guide::benchmarks).
//!
//! # Troubleshooting
//!
//! `RUST_LOG=bevy_candle=debug` shows every transition. A model that fails says why in
//! [`last_error`](ModelStatus::last_error) and in the log; [`ErrorChain`] prints an error with its causes.
//! What a pipeline can do to the whole process is abort it, with a stack overflow, say, with memory that candle asks for
//! while it computes and that the system refuses, or with a panic where the game is built with `panic = "abort"`:
//! [`guide::reliability`] lists all ways.
//!
//! An app that sleeps between inputs is woken by results where it says how: see [`WakeUp`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use candle_core as candle;
pub use candle_nn;

mod device;
mod diagnostics;
mod error;
mod frame_guard;
mod infer;
mod kinds;
mod lifeline;
mod loader;
mod mailbox;
mod manager;
mod memory;
#[cfg(feature = "panel")]
mod panel;
mod panics;
mod pipeline;
mod plugin;
mod reflect;
mod schedule;
mod shared;
mod signal;
mod source;
mod state;
mod threads;

#[cfg(feature = "test_kit")]
pub mod test_kit;

pub use device::DeviceChoice;
pub use diagnostics::ModelDiagnosticsPlugin;
pub use error::{BoxedSource, ErrorChain, InferError, LoadError};
pub use infer::{Infer, InferStep, Inferred, Steps};
pub use kinds::{ModelKind, ModelKinds, ModelRequest};
pub use loader::{LoadPhase, LoadSteps, LoaderService, Plan, Progress};
pub use manager::{ModelManager, ModelStatus, PipelineManager, Residency};
pub use memory::{
    CardReport, DeviceMemory, EvictionPolicy, LeastRecentlyUsed, ModelMemory, ReleaseReport,
    ResidentModel, ResourceManager, SlotId, Standing,
};
#[cfg(feature = "panel")]
pub use panel::{ModelPanel, ModelPanelPlugin};
pub use pipeline::{
    Pipeline, Slot,
    ddpm::{
        self, DdpmOutput, DdpmPipeline, DdpmRequest, DdpmSettings, Guidance, Sampler, StartImage,
        TimestepSpacing,
    },
};
pub use plugin::{CandlePlugin, ModelPlugin};
pub use schedule::{CandleShutdown, CandleSystems};
pub use signal::WakeUp;
pub use source::{MemoryFiles, ModelFiles, ModelId, ModelSource, read_json};
pub use state::{ModelState, ModelTransition, StateManager, StateOf, TransitionReason};

/// The state machine by itself, without Bevy, threads or clock.
///
/// Its owner hands it [`Facts`](machine::Facts) once a frame and does the [`ModelAction`](machine::ModelAction) of its
/// [`Step`](machine::Step), which also has the edge: the change from one state to the next. [`StateManager`] has the rules,
/// and an example.
pub mod machine {
    pub use crate::state::{Ended, Facts, Leave, ModelAction, StateManager, Step, Wish};
}

#[cfg(all(doc, not(doctest)))]
pub mod guide;

/// The quick start of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What most apps need, and of this crate what a pipeline of one's own needs: `use bevy_candle::prelude::*;`. The
/// crates `candle` and `candle_nn` are at the root.
pub mod prelude {
    pub use crate::{
        CandlePlugin, CandleShutdown, CandleSystems, DeviceChoice, ErrorChain, Infer, InferError,
        InferStep, Inferred, LoadError, LoadPhase, LoadSteps, LoaderService, MemoryFiles,
        ModelFiles, ModelId, ModelManager, ModelPlugin, ModelSource, ModelState, ModelStatus,
        ModelTransition, Pipeline, PipelineManager, Plan, Progress, ReleaseReport, Residency,
        ResourceManager, Slot, StateManager, StateOf, Steps, TransitionReason, WakeUp,
        ddpm::{
            DdpmOutput, DdpmPipeline, DdpmRequest, DdpmSettings, Guidance, Sampler, StartImage,
            TimestepSpacing,
        },
        read_json,
    };
}
