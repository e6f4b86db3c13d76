//! What a diffusion model gives.

use std::sync::Arc;

use bevy::{asset::RenderAssetUsages, image::Image, prelude::*};
use wgpu_types::{Extent3d, TextureDimension, TextureFormat};

/// Pictures as numbers: an output, or a preview.
#[derive(Clone, Debug, Default, PartialEq, Reflect)]
#[reflect(Clone, Debug, Default, PartialEq)]
pub struct DdpmOutput {
    /// `(batch, channels, height, width)`.
    pub shape: [usize; 4],
    /// The numbers in one run, -1 to 1; a preview may go beyond.
    pub samples: Arc<[f32]>,
}

impl DdpmOutput {
    pub(super) fn new(shape: [usize; 4], samples: Vec<f32>) -> Self {
        Self {
            shape,
            samples: samples.into(),
        }
    }

    /// Returns a Bevy image for each sample, in sRGB with 8 bits a channel.
    ///
    /// One channel is grey, three are red, green and blue, four have an opacity besides; numbers become
    /// bytes as they are, so whether colours are multiplied by it is as the model was trained. Other
    /// models make no pictures, and give none.
    pub fn images(&self) -> Vec<Image> {
        let [_, channels, height, width] = self.shape;
        let pixel: fn(&[u8]) -> [u8; 4] = match channels {
            1 => |values| [values[0], values[0], values[0], 255],
            3 => |values| [values[0], values[1], values[2], 255],
            4 => |values| [values[0], values[1], values[2], values[3]],
            _ => return Vec::new(),
        };
        if height == 0 || width == 0 {
            return Vec::new();
        }
        let size = Extent3d {
            width: width as u32,
            height: height as u32,
            depth_or_array_layers: 1,
        };
        let image = |sample: &[f32]| {
            let planes: Vec<&[f32]> = sample.chunks_exact(height * width).collect();
            let values = |at: usize| {
                planes
                    .iter()
                    .map(|plane| byte(plane[at]))
                    .collect::<Vec<_>>()
            };
            let data = (0..height * width)
                .flat_map(|at| pixel(&values(at)))
                .collect();
            let format = TextureFormat::Rgba8UnormSrgb;
            Image::new(
                size,
                TextureDimension::D2,
                data,
                format,
                RenderAssetUsages::default(),
            )
        };
        self.samples
            .chunks_exact(channels * height * width)
            .map(image)
            .collect()
    }
}

/// -1 to 1 as 0 to 255, as diffusers does it.
fn byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let output = DdpmOutput::new(
            [2, 3, 1, 2],
            vec![
                -1.0, 1.0, 0.0, 0.5, 2.0, -2.0, // first sample: red, green, blue
                1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
            ],
        );
        let images = output.images();
        assert_eq!(images.len(), 2);
        assert_eq!(
            images[0].data.as_deref(),
            Some(&[0, 128, 255, 255, 255, 191, 0, 255][..])
        );
        assert_eq!(images[1].size(), UVec2::new(2, 1));
    }

    #[test]
    fn grey_is_opaque_and_strange_channel_counts_give_no_picture() {
        let grey = DdpmOutput::new([1, 1, 1, 1], vec![-1.0]);
        assert_eq!(grey.images()[0].data.as_deref(), Some(&[0, 0, 0, 255][..]));
        assert!(
            DdpmOutput::new([1, 2, 1, 1], vec![0.0; 2])
                .images()
                .is_empty()
        );
    }
}
