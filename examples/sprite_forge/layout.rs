//! Where everything is: a header, and three columns.

use bevy::prelude::*;
use bevy_candle::ModelPanel;

use crate::{
    controls, gauges, inventory,
    kit::palette::{DIM, EMBER, PANEL, TEXT},
    lamps, queue, stage,
};

pub fn plugin(app: &mut App) {
    app.add_systems(Startup, build);
}

/// How wide the columns at the sides are; the middle has the rest.
const LEFT: f32 = 300.0;
const RIGHT: f32 = 334.0;

fn build(mut commands: Commands, assets: Res<AssetServer>, mut images: ResMut<Assets<Image>>) {
    let root = Node {
        width: percent(100),
        height: percent(100),
        align_items: AlignItems::Center,
        justify_content: JustifyContent::Center,
        ..default()
    };
    let page = Node {
        width: px(1280),
        height: px(720),
        flex_direction: FlexDirection::Column,
        padding: UiRect::all(px(16)),
        row_gap: px(14),
        ..default()
    };
    let columns = Node {
        flex_grow: 1.0,
        min_height: px(0),
        column_gap: px(16),
        ..default()
    };
    let columns = (
        columns,
        children![left(&assets), middle(&mut images), right(),],
    );
    commands.spawn((root, children![(page, children![header(), columns])]));
}

fn header() -> impl Bundle {
    let node = Node {
        height: px(52),
        padding: UiRect::axes(px(18), px(0)),
        align_items: AlignItems::Center,
        column_gap: px(14),
        border_radius: BorderRadius::all(px(8)),
        flex_shrink: 0.0,
        ..default()
    };
    let gap = Node {
        flex_grow: 1.0,
        ..default()
    };
    (
        node,
        BackgroundColor(PANEL),
        children![
            text("SPRITE FORGE", 22.0, EMBER),
            text("pixel art from noise, on your own machine", 14.0, DIM),
            gap,
            lamps::row(),
        ],
    )
}

fn left(assets: &AssetServer) -> impl Bundle {
    (
        column(LEFT),
        children![
            controls::items(assets),
            controls::samplers(),
            controls::forge(),
            queue::list(),
        ],
    )
}

fn middle(images: &mut Assets<Image>) -> impl Bundle {
    let node = Node {
        flex_grow: 1.0,
        flex_direction: FlexDirection::Column,
        justify_content: JustifyContent::SpaceBetween,
        ..default()
    };
    (node, children![stage::frame(images), gauges::row(images)])
}

fn right() -> impl Bundle {
    (
        column(RIGHT),
        children![ModelPanel::default(), inventory::grid()],
    )
}

fn column(width: f32) -> Node {
    Node {
        width: px(width),
        flex_direction: FlexDirection::Column,
        row_gap: px(14),
        flex_shrink: 0.0,
        ..default()
    }
}

/// A part of a column, with its title.
pub fn card(title: impl Bundle, content: impl Bundle, grow: f32) -> impl Bundle {
    let node = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(8),
        padding: UiRect::all(px(14)),
        border_radius: BorderRadius::all(px(8)),
        flex_grow: grow,
        flex_basis: if grow > 0.0 { px(0) } else { auto() },
        min_height: px(0),
        ..default()
    };
    (node, BackgroundColor(PANEL), children![title, content])
}

pub fn text(text: impl Into<String>, size: f32, color: Color) -> impl Bundle {
    (
        Text::new(text),
        TextFont::from_font_size(size),
        TextColor(color),
        TextLayout::no_wrap(),
        Pickable::IGNORE,
    )
}

pub fn title(text_: &str) -> impl Bundle {
    text(text_, 14.0, TEXT)
}
