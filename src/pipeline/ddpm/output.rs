//! What a diffusion model gives.

use std::sync::Arc;

use bevy::{asset::RenderAssetUsages, image::Image, prelude::*};
use wgpu_types::{Extent3d, TextureDimension, TextureFormat};

/// Pictures as numbers: an output, or a preview. More fields will come: end with `..default()`.
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
        if !matches!(channels, 1 | 3 | 4) || height == 0 || width == 0 {
            return Vec::new();
        }
        let size = Extent3d {
            width: width as u32,
            height: height as u32,
            depth_or_array_layers: 1,
        };
        let image = |sample: &[f32]| {
            Image::new(
                size,
                TextureDimension::D2,
                pixels(sample, channels),
                TextureFormat::Rgba8UnormSrgb,
                RenderAssetUsages::default(),
            )
        };
        self.samples
            .chunks_exact(channels * height * width)
            .map(image)
            .collect()
    }
}

/// Four bytes a pixel, out of a plane of numbers for each of 1, 3 or 4 channels.
fn pixels(sample: &[f32], channels: usize) -> Vec<u8> {
    let plane = sample.len() / channels;
    let at = |channel: usize, pixel: usize| byte(sample[channel * plane + pixel]);
    let rgba = |pixel| match channels {
        1 => {
            let grey = at(0, pixel);
            [grey, grey, grey, 255]
        }
        3 => [at(0, pixel), at(1, pixel), at(2, pixel), 255],
        _ => [at(0, pixel), at(1, pixel), at(2, pixel), at(3, pixel)],
    };
    (0..plane).flat_map(rgba).collect()
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
    fn a_fourth_channel_is_the_opacity() {
        let output = DdpmOutput::new([1, 4, 1, 1], vec![1.0, 0.0, -1.0, 0.5]);
        let pixel = [255, 128, 0, 191];
        assert_eq!(output.images()[0].data.as_deref(), Some(&pixel[..]));
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
