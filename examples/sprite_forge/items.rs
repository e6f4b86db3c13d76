//! The items: their names, their icons, their pictures.

use bevy::prelude::*;
use bevy_candle::ddpm::DdpmOutput;

use crate::kit::canvas::part_of_room;

/// The classes of the shipped model, in their order.
pub const NAMES: [&str; 8] = [
    "sword", "shield", "potion", "gem", "key", "heart", "mushroom", "critter",
];

/// The ground of an item: the sheet's.
pub const GROUND: Color = Color::srgb(0.18, 0.165, 0.227);

/// The picture of the README: items in a row for each class, three times as large as they are.
const SHEET: &str = "docs/sprites.png";
const SHEET_CELL: f32 = 102.0;
const FAINT: u8 = 40;
const SHEET_ICON: f32 = 96.0;

/// Returns the icon of a class: one that the model has made before.
pub fn icon(class: u32, assets: &AssetServer) -> ImageNode {
    let corner = Vec2::new(class as f32 * SHEET_CELL + 3.0, 3.0);
    ImageNode {
        image: assets.load(SHEET),
        rect: Some(Rect::from_corners(corner, corner + SHEET_ICON)),
        ..default()
    }
}

/// Makes a square node as large as fits, with whole pixels.
#[derive(Component)]
pub struct WholePixels {
    /// The side of the picture, in its own pixels.
    pub pixels: f32,
    /// The largest side of the node.
    pub side: f32,
}

pub fn fit_pictures(mut nodes: Query<(&WholePixels, &ComputedNode, &mut Node)>) {
    for (picture, computed, mut node) in &mut nodes {
        let scale = computed.inverse_scale_factor().recip();
        let side = px(picture.side * part_of_room(picture.pixels, picture.side * scale));
        if node.width != side {
            (node.width, node.height) = (side, side);
        }
    }
}

/// Returns the first picture of an output, as Bevy draws it: the model's colours are multiplied by their opacity,
/// Bevy's are not. What can hardly be seen is not there.
pub fn picture(output: &DdpmOutput) -> Option<Image> {
    let mut image = output.images().into_iter().next()?;
    for pixel in image.data.as_mut()?.chunks_exact_mut(4) {
        if pixel[3] < FAINT {
            pixel[3] = 0;
        }
        let opacity = u32::from(pixel[3]);
        for channel in &mut pixel[..3] {
            let straight = (u32::from(*channel) * 255).checked_div(opacity);
            *channel = straight.unwrap_or(0).min(255) as u8;
        }
    }
    Some(image)
}
