//! Pictures whose pixels stay whole: what a scene draws on, and how large it is.

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

/// Returns how much of the room a picture takes whose pixels are whole; all of it where there is too little.
pub fn part_of_room(pixels: f32, room: f32) -> f32 {
    let times = (room / pixels).floor();
    if times >= 1.0 {
        times * pixels / room
    } else {
        1.0
    }
}
