//! [`ModelDiagnosticsPlugin`]: what models do, as Bevy diagnostics.

use bevy::{
    diagnostic::{DEFAULT_MAX_HISTORY_LENGTH, DiagnosticPath, DiagnosticsStore},
    prelude::*,
};

use crate::{CandleSystems, ModelKinds, Pipeline, kinds::kind_name};

mod gauge;

use gauge::{Gauge, Quantity};

/// Measures every manager once a frame, for [`DiagnosticsStore`] and what shows it: Bevy's `LogDiagnosticsPlugin` and
/// `DiagnosticsOverlay`, or a plot of the game's own.
///
/// In any order with the plugins of the models. Each kind has `model/<kind>/memory` in bytes,
/// `model/<kind>/load_progress` in percent, `model/<kind>/queue` in jobs that have not ended, and
/// `model/<kind>/job_time` in milliseconds on the device, in the frames in which jobs have ended: their mean. The
/// kind is the name of the pipeline without its path; two kinds of the same name share their diagnostics, so give one
/// of them a [`Slot`](crate::Slot).
///
/// ```
/// use bevy::{diagnostic::DiagnosticsStore, prelude::*};
/// use bevy_candle::{ModelDiagnosticsPlugin, prelude::*};
///
/// fn show(store: Res<DiagnosticsStore>) {
///     let memory = store.get(&ModelDiagnosticsPlugin::memory::<DdpmPipeline>());
///     info!("bytes of sprites: {:?}", memory.and_then(|memory| memory.smoothed()));
/// }
///
/// App::new()
///     .add_plugins((MinimalPlugins, ModelDiagnosticsPlugin::default()))
///     .add_plugins(ModelPlugin::<DdpmPipeline>::default())
///     .add_systems(Update, show)
///     .update();
/// ```
///
/// More fields will come: end with `..default()`.
#[derive(Clone, Debug)]
pub struct ModelDiagnosticsPlugin {
    /// How many measurements are kept of each (default: Bevy's).
    pub max_history_length: usize,
}

impl Default for ModelDiagnosticsPlugin {
    fn default() -> Self {
        Self {
            max_history_length: DEFAULT_MAX_HISTORY_LENGTH,
        }
    }
}

impl ModelDiagnosticsPlugin {
    /// Returns the path of the bytes that the weights of a kind's loading, loaded or unloading model claim.
    pub fn memory<P: Pipeline>() -> DiagnosticPath {
        Quantity::Memory.path(&kind_name::<P>())
    }

    /// Returns the path of the part of the load that is done, in percent.
    pub fn load_progress<P: Pipeline>() -> DiagnosticPath {
        Quantity::LoadProgress.path(&kind_name::<P>())
    }

    /// Returns the path of the number of jobs that have not ended.
    pub fn queue<P: Pipeline>() -> DiagnosticPath {
        Quantity::Queue.path(&kind_name::<P>())
    }

    /// Returns the path of the mean time of the jobs that have ended in a frame, in milliseconds.
    pub fn job_time<P: Pipeline>() -> DiagnosticPath {
        Quantity::JobTime.path(&kind_name::<P>())
    }
}

impl Plugin for ModelDiagnosticsPlugin {
    fn build(&self, app: &mut App) {
        app.init_resource::<DiagnosticsStore>()
            .init_resource::<ModelKinds>()
            .insert_resource(Gauges {
                max_history_length: self.max_history_length,
                gauges: Vec::new(),
            })
            .add_systems(PreUpdate, measure.after(CandleSystems::Transition));
    }
}

/// One gauge for each kind, in their order.
#[derive(Resource)]
struct Gauges {
    max_history_length: usize,
    gauges: Vec<Gauge>,
}

fn measure(world: &mut World) {
    world.resource_scope(|world, mut gauges: Mut<Gauges>| {
        gauges.add_new(world);
        let readings: Vec<_> = gauges
            .gauges
            .iter_mut()
            .flat_map(|gauge| gauge.read(world))
            .collect();
        let mut store = world.resource_mut::<DiagnosticsStore>();
        for reading in readings {
            reading.write(&mut store);
        }
    });
}

impl Gauges {
    fn add_new(&mut self, world: &mut World) {
        let known = self.gauges.len();
        let kinds = world.resource::<ModelKinds>();
        let new: Vec<_> = kinds.iter().skip(known).map(Gauge::new).collect();
        let mut store = world.resource_mut::<DiagnosticsStore>();
        for gauge in new {
            for diagnostic in gauge.diagnostics() {
                store.add(diagnostic.with_max_history_length(self.max_history_length));
            }
            self.gauges.push(gauge);
        }
    }
}
