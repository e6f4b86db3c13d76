//! Pictures whose pixels stay whole: what a scene draws on, and what it shows at a size of its own.

use bevy::{
    asset::RenderAssetUsages,
    prelude::*,
    render::render_resource::{Extent3d, TextureDimension, TextureFormat},
};

/// Returns a black picture to draw on.
pub fn canvas(size: UVec2, images: &mut Assets<Image>) -> ImageNode {
    let extent = Extent3d {
        width: size.x,
        height: size.y,
        depth_or_array_layers: 1,
    };
    let image = Image::new_fill(
        extent,
        TextureDimension::D2,
        &[0, 0, 0, 255],
        TextureFormat::Rgba8UnormSrgb,
        RenderAssetUsages::default(),
    );
    ImageNode::new(images.add(image))
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

/// Returns how much of the room a picture takes whose pixels are whole; all of it where there is too little.
pub fn part_of_room(pixels: f32, room: f32) -> f32 {
    let times = (room / pixels).floor();
    if times >= 1.0 {
        times * pixels / room
    } else {
        1.0
    }
}
