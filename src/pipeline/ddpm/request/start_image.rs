//! [`StartImage`]: a picture to vary.

use std::sync::Arc;

use bevy::{
    image::{Image, TextureAccessError},
    prelude::*,
};

use super::UNetConfig;
use crate::{InferError, pipeline::ddpm::MAX_SIDE};

/// A picture to start from: it is taken part of the way back to noise, and from there to another picture, as
/// diffusers' image-to-image pipelines do (Meng et al. 2021, <https://arxiv.org/abs/2108.01073>).
///
/// ```
/// use bevy::prelude::*;
/// use bevy_candle::prelude::*;
///
/// # fn make(sprite: &Image) -> Result<DdpmRequest, InferError> {
/// let image = Some(StartImage::new(sprite, 0.6)?);
/// let request = DdpmRequest { image, class: Some(3), seed: 7, ..default() };
/// # Ok(request)
/// # }
/// # assert!(make(&Image::default()).is_ok());
/// ```
#[derive(Clone, Debug, Reflect)]
#[reflect(Clone, Debug)]
pub struct StartImage {
    size: UVec2,
    /// Red, green, blue and opacity of each pixel, in sRGB, 0 to 1.
    pixels: Arc<[[f32; 4]]>,
    strength: f64,
}

/// How much red, green and blue count in grey (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

impl StartImage {
    /// Takes a picture of the model's [`sample_size`](crate::ModelStatus::sample_size), in any uncompressed format of
    /// up to 4 channels. `strength` is how much it is changed, and the part of the `steps` that are taken: above 0, and
    /// at most 1, which leaves nothing of the picture. Looks at each pixel at once.
    ///
    /// # Errors
    /// [`InferError::InvalidRequest`] where the picture has no pixels in main memory, or in a format that cannot be
    /// read, or is larger than 8,192 pixels a side. With a `strength` that leaves no step, the job ends with it.
    pub fn new(image: &Image, strength: f64) -> Result<Self, InferError> {
        let size = image.size();
        if size.max_element() as usize > MAX_SIDE {
            let expected = format!("at most {MAX_SIDE} pixels a side");
            return Err(InferError::invalid_request("image", size, expected));
        }
        let places = (0..size.y).flat_map(|y| (0..size.x).map(move |x| (x, y)));
        let pixel = |(x, y)| {
            let color = image.get_color_at(x, y)?.to_srgba();
            Ok(color.to_f32_array().map(|value| value.clamp(0.0, 1.0)))
        };
        let pixels: Result<_, TextureAccessError> = places.map(pixel).collect();
        let pixels = pixels.map_err(|error| {
            let expected = "an uncompressed picture that is kept in main memory";
            InferError::invalid_request("image", error, expected)
        })?;
        Ok(Self {
            size,
            pixels,
            strength,
        })
    }

    /// How much the picture is changed, 0 to 1.
    pub(in super::super) fn strength(&self) -> f64 {
        self.strength
    }

    /// Refuses what the model cannot start from.
    pub(in super::super) fn check(&self, unet: &UNetConfig) -> Result<(), InferError> {
        let (width, height) = unet.sample_size;
        let expected = UVec2::new(width as u32, height as u32);
        if self.size != expected {
            let (value, expected) = (
                format!("{} pixels", self.size),
                format!("{expected} pixels"),
            );
            return Err(InferError::invalid_request("image", value, expected));
        }
        if !matches!(unet.in_channels, 1 | 3 | 4) {
            let expected = format!("None, since its samples have {} channels", unet.in_channels);
            return Err(InferError::invalid_request("image", "a picture", expected));
        }
        Ok(())
    }

    /// The picture as samples of a shape, the same for each of the batch, -1 to 1.
    pub(in super::super) fn samples(&self, shape: [usize; 4]) -> Vec<f32> {
        let [batch, channels, ..] = shape;
        let value = |pixel: &[f32; 4], channel: usize| match channels {
            1 => GREY
                .iter()
                .zip(pixel)
                .map(|(part, value)| part * value)
                .sum(),
            _ => pixel[channel],
        };
        let plane = |channel| self.pixels.iter().map(move |pixel| value(pixel, channel));
        let sample: Vec<f32> = (0..channels)
            .flat_map(plane)
            .map(|value: f32| value * 2.0 - 1.0)
            .collect();
        sample.repeat(batch)
    }
}

#[cfg(test)]
mod tests {
    use bevy::asset::RenderAssetUsages;
    use wgpu_types::{Extent3d, TextureDimension, TextureFormat};

    use super::*;

    fn image(bytes: &[u8], format: TextureFormat) -> Image {
        let size = Extent3d {
            width: 2,
            height: 1,
            depth_or_array_layers: 1,
        };
        let usage = RenderAssetUsages::default();
        Image::new(size, TextureDimension::D2, bytes.to_vec(), format, usage)
    }

    #[test]
    fn pixels_become_planes() {
        let bytes = [255, 0, 51, 255, 0, 255, 255, 0];
        let start = StartImage::new(&image(&bytes, TextureFormat::Rgba8UnormSrgb), 0.5);
        let start = start.expect("a picture");
        let near = |samples: Vec<f32>, expected: &[f32]| {
            assert_eq!(samples.len(), expected.len());
            for (sample, expected) in samples.iter().zip(expected) {
                assert!((sample - expected).abs() < 1e-5, "{samples:?}");
            }
        };
        let red_green_blue = [1.0, -1.0, -1.0, 1.0, -0.6, 1.0];
        near(start.samples([1, 3, 1, 2]), &red_green_blue);
        let twice = [red_green_blue, red_green_blue].concat();
        near(start.samples([2, 3, 1, 2]), &twice);
        near(start.samples([1, 4, 1, 2])[6..].to_vec(), &[1.0, -1.0]);
        let grey = [(0.299 + 0.2 * 0.114) * 2.0 - 1.0, 0.701 * 2.0 - 1.0];
        near(start.samples([1, 1, 1, 2]), &grey);
    }

    #[test]
    fn linear_colours_are_taken_to_srgb() {
        let bytes = [55, 55, 55, 255, 0, 0, 0, 255];
        let start = StartImage::new(&image(&bytes, TextureFormat::Rgba8Unorm), 0.5);
        let grey = start.expect("a picture").pixels[0][0];
        assert!((grey - 0.5).abs() < 0.01, "{grey}");
    }

    #[test]
    fn a_picture_that_is_not_in_main_memory_is_refused() {
        let mut image = image(&[0; 8], TextureFormat::Rgba8UnormSrgb);
        image.data = None;
        let error = StartImage::new(&image, 0.5).expect_err("no pixels");
        assert!(error.to_string().contains("main memory"), "{error}");
    }
}
