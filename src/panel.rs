//! [`ModelPanelPlugin`]: every manager on the screen, with buttons. Feature `panel`; in Bevy's own UI.

use bevy::{picking::PickingPlugin, prelude::*, ui_widgets::ButtonPlugin};
use tracing::warn;

use crate::{CandleSystems, ModelKinds};

mod build;
mod card;
mod refresh;

use build::{add_cards, spawn_default};
use card::Cards;
use refresh::{paint_buttons, press, read_models, show_bars, show_lines, show_state};

/// Adds a panel that shows every manager: state, progress, memory, queue and last error, with buttons for the
/// requests of a [`ModelRequest`](crate::ModelRequest).
///
/// It needs a camera, and what `DefaultPlugins` has with Bevy's features for UI: `UiPlugin`, `DefaultPickingPlugins`,
/// `UiWidgetsPlugins`, and `UiRenderPlugin` of the feature `ui_bevy_render`, without which nothing is drawn. Where a game has spawned no [`ModelPanel`] when `Startup` is over, the plugin spawns one at the
/// top right of the window.
///
/// ```no_run
/// use bevy::prelude::*;
/// use bevy_candle::{ModelPanelPlugin, prelude::*};
///
/// App::new()
///     .add_plugins((DefaultPlugins, ModelPlugin::<DdpmPipeline>::default()))
///     .add_plugins(ModelPanelPlugin)
///     .run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelPanelPlugin;

impl Plugin for ModelPanelPlugin {
    fn build(&self, app: &mut App) {
        app.init_resource::<ModelKinds>()
            .init_resource::<Cards>()
            .add_systems(PostStartup, spawn_default)
            .add_systems(PreUpdate, read_models.after(CandleSystems::Transition))
            .add_systems(
                Update,
                (add_cards, show_lines, show_bars, show_state, paint_buttons).chain(),
            )
            .add_observer(press);
    }

    fn finish(&self, app: &mut App) {
        if !app.is_plugin_added::<ButtonPlugin>() || !app.is_plugin_added::<PickingPlugin>() {
            warn!(
                "the buttons of the model panel do nothing: add `UiWidgetsPlugins` and `DefaultPickingPlugins`, or \
                 `DefaultPlugins` with Bevy's features for UI"
            );
        }
    }
}

/// A panel. A game spawns it as a part of a UI of its own, with the [`Node`] that it should have.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::ModelPanel;
///
/// fn set_up(mut commands: Commands) {
///     commands.spawn((Node { width: px(400), ..default() }, children![ModelPanel::default()]));
/// }
/// # bevy::ecs::system::assert_is_system(set_up);
/// ```
#[derive(Component, Default, Debug)]
#[require(Node = column())]
pub struct ModelPanel {
    /// The kinds that have a card in it, by their places in [`ModelKinds`].
    cards: Vec<usize>,
}

fn column() -> Node {
    Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(8),
        ..default()
    }
}
