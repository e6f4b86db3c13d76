//! For tests without weights, a network or a GPU: a scripted pipeline, gates, a recorder.
//!
//! Feature `test_kit`. Everything goes the ordinary way, files, readers and the device thread included;
//! only the bytes are made up. Gates hold the model where a test wants it, so no test has to sleep.
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_candle::{prelude::*, test_kit::{Fake, FakeModel, Gate, run_until}};
//!
//! let mut app = App::new();
//! app.add_plugins((MinimalPlugins, ModelPlugin::<Fake>::default()));
//!
//! let gate = Gate::closed();
//! let model = FakeModel::new("slow").gate_reads(&gate);
//! app.world_mut().resource_mut::<ModelManager<Fake>>().load(model.source());
//! run_until(&mut app, "a reader at the gate", |_| gate.waiting() > 0);
//! assert_eq!(app.world().resource::<ModelManager<Fake>>().current_state, ModelState::Loading);
//!
//! gate.open();
//! run_until(&mut app, "the model", |world| world.resource::<ModelManager<Fake>>().current_state.is_loaded());
//! ```

mod fake;
mod gate;
mod recorder;
mod replay;
mod run;
mod script;
mod steps;

pub use crate::manager::{Happening, News};
pub use fake::{Fake, FakeConfig, FakeOutput, FakeRequest, FakeSettings};
pub use gate::{Gate, GatedFiles};
pub use recorder::{Logged, Recorder, RecorderPlugin};
pub use replay::Replay;
pub use run::{break_devices, lose_devices, run_until, run_until_state, wait_until};
pub use script::{FakeEvent, FakeModel, Place};
pub use steps::steps;
