//! [`Residency`]: how long a model stays in memory.

use std::time::Duration;

use bevy::prelude::*;

/// How long a manager's models stay in memory. Set in [`ModelPlugin`](crate::ModelPlugin), changed with
/// [`ModelManager::residency_mut`](crate::ModelManager::residency_mut). More fields will come: end with
/// `..default()`.
///
/// ```
/// use std::time::Duration;
///
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// fn boss_fight(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
///     sprites.residency_mut().pinned = true;
/// }
///
/// fn calm_again(mut sprites: ResMut<ModelManager<DdpmPipeline>>) {
///     sprites.residency_mut().pinned = false;
///     sprites.residency_mut().keep_alive = Some(Duration::from_secs(60));
/// }
/// # bevy::ecs::system::assert_is_system(boss_fight);
/// # bevy::ecs::system::assert_is_system(calm_again);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Reflect)]
#[reflect(Clone, PartialEq, Debug, Default)]
pub struct Residency {
    /// The model is never evicted. It still expires, and goes when the game asks.
    pub pinned: bool,
    /// The higher, the longer the model stays where room is needed, and the sooner it gets its turn in the
    /// line for memory (default 0).
    pub priority: i32,
    /// The model is unloaded when it had no job for so long, on the clock of [`Time<Real>`], and a job brings it
    /// back. [`None`], the default, is for ever. Parked models stay until room is needed.
    pub keep_alive: Option<Duration>,
    /// How many previous models stay in memory, parked, when the game loads another one (default 0). Switching
    /// back then reads nothing. They go first where room is needed, and with `unload`.
    pub keep_parked: usize,
}
