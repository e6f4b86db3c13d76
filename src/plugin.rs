//! [`CandlePlugin`] and [`ModelPlugin`].

use std::{fmt, marker::PhantomData, num::NonZeroUsize, path::PathBuf, time::Duration};

#[cfg(not(target_family = "wasm"))]
use bevy::asset::{AssetPlugin, io::file::FileAssetReader};
use bevy::prelude::*;
use tracing::error;

use crate::{
    CandleShutdown, CandleSystems, DeviceChoice, ErrorChain, ModelManager, ModelTransition,
    Pipeline, Residency, ResourceManager,
    frame_guard::{StepGate, guard_frames},
    infer::deliver,
    kinds::ModelKinds,
    loader::LoaderService,
    manager::{let_go, post_residency, reconcile, wait_for_memory},
    memory::arbitrate,
    reflect::{register_kind, register_types},
    schedule::{EnterFirstStates, ModelLifecycle, ShutdownTimeout, add_schedules},
    signal::{Alarm, Signal, WakeUp},
    state::{add_model_state, enter_first_states, mirror},
};

/// The settings of the app's models. Without it the defaults hold; where it is added twice, the last one
/// counts. More fields will come: end with `..default()`.
///
/// ```
/// use std::time::Duration;
///
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// App::new()
///     .add_plugins(MinimalPlugins)
///     // Optional, once an app, before or after the others.
///     .add_plugins(CandlePlugin { shutdown_timeout: Duration::from_secs(5), ..default() })
///     .add_plugins(ModelPlugin::<DdpmPipeline>::default());
/// ```
#[derive(Clone, Debug)]
pub struct CandlePlugin {
    /// Where models run (default [`DeviceChoice::Auto`]).
    pub device: DeviceChoice,
    /// Bytes that models and their jobs may claim together, for each device. [`None`], the default, is
    /// measured when the device is opened: half of the memory or 80 % of what is available, whichever is
    /// less; on a CUDA card what is free, less 1 GiB or 15 %, whichever is more. Each app of a process has its own.
    pub memory_budget: Option<u64>,
    /// Threads of the CPU device; [`None`], the default, is all cores but one, at least one. The apps of a process
    /// share the device's threads: the first one's setting counts.
    pub threads: Option<NonZeroUsize>,
    /// The most that the work of a frame may take; a game at 60 Hz says a little less than 16.7 ms. [`None`], the
    /// default: no frame is looked at.
    ///
    /// Where a frame takes more while a job runs, inference pauses between steps until the frames are well again, but
    /// for one step of each job every 250 ms. A game that is slow by itself is not answered by pausing.
    ///
    /// Loads and unloads rest while a frame works, in each frame for no longer than the game waits before the next one.
    /// They also begin no step that would reach into the next frame.
    ///
    /// The work is all of [`Main`](bevy::app::Main); waiting for the screen is not in it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bevy::prelude::*;
    /// use bevy_candle::prelude::*;
    ///
    /// let mut app = App::new();
    /// app.add_plugins((
    ///     MinimalPlugins,
    ///     CandlePlugin { frame_target: Some(Duration::from_micros(16_600)), ..default() },
    ///     ModelPlugin::<DdpmPipeline>::default(),
    /// ));
    /// # app.finish();
    /// # app.update();
    /// ```
    pub frame_target: Option<Duration>,
    /// How long the end of the app waits for models and threads (default 2 s); then they are left behind
    /// with a warning that names them.
    pub shutdown_timeout: Duration,
}

impl Default for CandlePlugin {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            memory_budget: None,
            threads: None,
            frame_target: None,
            shutdown_timeout: Duration::from_secs(2),
        }
    }
}

impl Plugin for CandlePlugin {
    fn build(&self, app: &mut App) {
        if !app.is_plugin_added::<CandleCore>() {
            app.add_plugins(CandleCore);
        }
        guard_frames(app, self.frame_target);
        let root = asset_root(app);
        let world = app.world_mut();
        world.insert_resource(ShutdownTimeout(self.shutdown_timeout));
        world
            .resource_mut::<ResourceManager>()
            .configure(self.device, self.memory_budget);
        let mut loader = world.resource_mut::<LoaderService>();
        loader.configure(self);
        loader.set_root(root);
    }

    /// A [`ModelPlugin`] may have added the defaults already.
    fn is_unique(&self) -> bool {
        false
    }
}

/// What all kinds of models share.
struct CandleCore;

impl Plugin for CandleCore {
    fn build(&self, app: &mut App) {
        app.init_resource::<Signal>()
            .init_resource::<WakeUp>()
            .init_resource::<Alarm>()
            .init_resource::<ModelKinds>()
            .init_resource::<StepGate>()
            .init_resource::<ResourceManager>()
            .init_resource::<LoaderService>();
        add_schedules(app);
        #[cfg(feature = "winit")]
        app.add_systems(PostStartup, crate::signal::wake_event_loop);
        register_types(app);
    }

    /// Every plugin is there by now, also an `AssetPlugin` that came later.
    fn finish(&self, app: &mut App) {
        let root = asset_root(app);
        let open = |world: &mut World, mut memory: Mut<ResourceManager>| {
            let mut loader = world.resource_mut::<LoaderService>();
            loader.set_root(root);
            if let Err(error) = loader.open(&mut memory) {
                error!("a device cannot be used: {}", ErrorChain(&error));
            }
        };
        app.world_mut().resource_scope(open);
    }
}

/// The web has no folders, and no loads yet.
#[cfg(target_family = "wasm")]
fn asset_root(_: &App) -> PathBuf {
    PathBuf::new()
}

/// The folder that the app's assets are in, as Bevy finds it; without `AssetPlugin`, as its default
/// would.
#[cfg(not(target_family = "wasm"))]
fn asset_root(app: &App) -> PathBuf {
    let default = AssetPlugin::default().file_path;
    let added = app.get_added_plugins::<AssetPlugin>();
    let folder = added.first().map_or(&default, |plugin| &plugin.file_path);
    FileAssetReader::get_base_path().join(folder)
}

/// One kind of model: its [`ModelManager`], its state, its messages, its jobs.
///
/// More fields will come: end with `..default()`.
///
/// ```
/// use std::time::Duration;
///
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// # let mut app = App::new();
/// # app.add_plugins(MinimalPlugins);
/// app.add_plugins(ModelPlugin::<DdpmPipeline> {
///     keep_alive: Some(Duration::from_secs(300)),
///     ..default()
/// });
/// ```
pub struct ModelPlugin<P: Pipeline> {
    /// Where these models run; [`None`], the default, is [`CandlePlugin::device`].
    pub device: Option<DeviceChoice>,
    /// How long a model stays without a job (default [`None`], for ever); see [`Residency::keep_alive`].
    pub keep_alive: Option<Duration>,
    /// How many previous models stay in memory (default 0); see [`Residency::keep_parked`].
    pub keep_parked: usize,
    /// The higher, the longer models stay where room is needed (default 0); see [`Residency::priority`].
    pub priority: i32,
    /// Whether models are never evicted (default `false`); see [`Residency::pinned`].
    pub pinned: bool,
    #[doc(hidden)]
    pub kind: PhantomData<fn() -> P>,
}

impl<P: Pipeline> Default for ModelPlugin<P> {
    fn default() -> Self {
        Self {
            device: None,
            keep_alive: None,
            keep_parked: 0,
            priority: 0,
            pinned: false,
            kind: PhantomData,
        }
    }
}

impl<P: Pipeline> fmt::Debug for ModelPlugin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelPlugin")
            .field("device", &self.device)
            .field("keep_alive", &self.keep_alive)
            .field("keep_parked", &self.keep_parked)
            .field("priority", &self.priority)
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

impl<P: Pipeline> Plugin for ModelPlugin<P> {
    fn build(&self, app: &mut App) {
        if !app.is_plugin_added::<CandleCore>() {
            app.add_plugins(CandlePlugin::default());
        }
        register_kind::<P>(app);
        app.world_mut().resource_mut::<ModelKinds>().add::<P>();
        add_model_state::<P>(app);
        app.init_resource::<ModelManager<P>>();
        let world = app.world_mut();
        let mut manager = world.resource_mut::<ModelManager<P>>();
        let residency = Residency {
            pinned: self.pinned,
            priority: self.priority,
            keep_alive: self.keep_alive,
            keep_parked: self.keep_parked,
        };
        manager.configure(self.device, residency);
        if let Some(device) = self.device {
            world.resource_mut::<LoaderService>().use_device(device);
        }
        app.add_message::<ModelTransition<P>>()
            .add_systems(EnterFirstStates, enter_first_states::<P>)
            .add_systems(
                ModelLifecycle,
                (
                    deliver::<P>.in_set(CandleSystems::Deliver),
                    post_residency::<P>
                        .after(CandleSystems::Deliver)
                        .before(arbitrate),
                    reconcile::<P>.in_set(CandleSystems::Reconcile),
                    mirror::<P>.in_set(CandleSystems::Transition),
                ),
            )
            .add_systems(
                CandleShutdown,
                (let_go::<P>.in_set(LetGo), wait_for_memory::<P>.after(LetGo))
                    .in_set(CandleSystems::Release),
            );
    }
}

/// All kinds let go before one of them waits.
#[derive(SystemSet, Clone, Debug, PartialEq, Eq, Hash)]
struct LetGo;
