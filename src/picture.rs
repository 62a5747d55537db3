//! Pictures: from files to planes of numbers, and back.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbImage};

use crate::decode::{self, Room};
use crate::gpu::Gpu;
use crate::{Error, Result};

/// Pixels as planes [C, H, W].
///
/// Needs the feature `pictures`.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// 1 for grey, 3 for red, green, blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// [C, H, W].
    pub data: Vec<f32>,
}

impl Picture {
    /// Reads any file that [`Picture::decode`] decodes.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is no whole picture, or takes more than 1 GiB.
    pub fn read(path: &Path) -> Result<Self> {
        let decoded = decode::read(path, WHOLE)?;
        Self::from_image(path, &decoded.image, None)
    }

    /// As [`Picture::read`], for a tensor on `gpu`: what does not fit is refused by its header, before it is decoded.
    ///
    /// # Errors
    /// Those of [`Picture::read`], and [`Error::Data`] if one plane is more than the adapter binds.
    pub fn read_for(gpu: &Gpu, path: &Path) -> Result<Self> {
        let pixels = gpu.limits().max_storage_buffer_binding_size / 4;
        let decoded = decode::read(path, Room { pixels, ..WHOLE })?;
        Self::from_image(path, &decoded.image, None)
    }

    /// As [`Picture::read`], no side longer than `side` pixels. It takes less memory than reading it whole.
    ///
    /// # Errors
    /// Those of [`Picture::read`], and [`Error::Config`] for a side of 0.
    pub fn read_scaled(path: &Path, side: usize) -> Result<Self> {
        let decoded = decode::read(path, Room::of(OF_ONE_PLANE))?;
        Self::from_image(path, &decoded.image, Some(side))
    }

    /// Whether the name ends as that of a picture does.
    pub fn has_known_extension(path: &Path) -> bool {
        ImageFormat::from_path(path).is_ok_and(|format| format.reading_enabled())
    }

    /// The picture in the bytes of a file, in [0, 1]; `path` is for messages. Grey files have one channel;
    /// transparency is left out; 16 bits stay 16 bits.
    ///
    /// # Errors
    /// [`Error::Data`] if it is no whole picture.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let decoded = decode::decode(path, bytes, WHOLE)?;
        Self::from_image(path, &decoded.image, None)
    }

    /// Channel by channel, so that one whole plane is in memory beside what is scaled.
    fn from_image(path: &Path, image: &DynamicImage, side: Option<usize>) -> Result<Self> {
        let channels = if has_colour(image) { 3 } else { 1 };
        let mut picture = Self {
            channels,
            height: image.height() as usize,
            width: image.width() as usize,
            data: Vec::new(),
        };
        for channel in 0..channels {
            let one = Self {
                channels: 1,
                height: image.height() as usize,
                width: image.width() as usize,
                data: plane(image, channel),
            };
            if one.data.iter().any(|v| !v.is_finite()) {
                return Err(Error::data(path, "has a pixel that is not a finite number"));
            }
            let one = match side {
                Some(side) => one.scaled_down(side)?,
                None => one,
            };
            (picture.height, picture.width) = (one.height, one.width);
            picture.data.extend(one.data);
        }
        Ok(picture)
    }

    /// The file of a PNG, 8 bits a channel.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not 1 or 3 planes of its size.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let plane = self.height * self.width;
        let byte = |c: usize, i: usize| {
            let value = self.data.get(c * plane + i).copied().unwrap_or_default();
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        let bytes = (0..plane).flat_map(|i| (0..self.channels).map(move |c| byte(c, i)));
        let (w, h) = (self.width as u32, self.height as u32);
        let image = match self.channels {
            1 => GrayImage::from_raw(w, h, bytes.collect()).map(DynamicImage::from),
            3 => RgbImage::from_raw(w, h, bytes.collect()).map(DynamicImage::from),
            _ => None,
        };
        let image = image.ok_or_else(|| Error::Config("a picture has 1 or 3 channels".into()))?;
        let mut file = Cursor::new(Vec::new());
        let written = image.write_to(&mut file, ImageFormat::Png);
        written.map_err(|e| Error::Config(format!("a picture cannot be written: {e}")))?;
        Ok(file.into_inner())
    }

    /// The picture in so many channels: grey in every channel, or the mean of red, green and blue.
    #[must_use]
    pub fn with_channels(&self, channels: usize) -> Self {
        let plane = self.height * self.width;
        let data = match (self.channels, channels) {
            (a, b) if a == b => self.data.clone(),
            (_, 1) => (0..plane)
                .map(|i| {
                    let sum: f32 = (0..self.channels).map(|c| self.data[c * plane + i]).sum();
                    sum / self.channels as f32
                })
                .collect(),
            _ => self.data[..plane].repeat(channels),
        };
        Self {
            channels,
            data,
            ..*self
        }
    }

    /// The picture scaled down so that neither side is longer than `side` pixels; as it is if it fits.
    ///
    /// # Errors
    /// [`Error::Config`] for a side of 0.
    pub fn scaled_down(&self, side: usize) -> Result<Self> {
        if side == 0 {
            return Err(Error::Config("`max_side` must be at least 1".into()));
        }
        let longer = self.height.max(self.width);
        if longer <= side {
            return Ok(self.clone());
        }
        let shrink = |n: usize| ((n * side + longer / 2) / longer).max(1);
        let (height, width) = (shrink(self.height), shrink(self.width));
        let mut data = Vec::with_capacity(self.channels * height * width);
        for plane in self.data.chunks_exact(self.height * self.width) {
            let buffer = ImageBuffer::<Luma<f32>, &[f32]>::from_raw(
                self.width as u32,
                self.height as u32,
                plane,
            )
            .ok_or_else(|| Error::bug("a plane has another size than its picture"))?;
            let filter = image::imageops::FilterType::CatmullRom;
            let small = image::imageops::resize(&buffer, width as u32, height as u32, filter);
            // The filter goes a little beyond the values at edges.
            let low = plane.iter().copied().fold(f32::INFINITY, f32::min);
            let high = plane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            data.extend(small.into_raw().iter().map(|v| v.clamp(low, high)));
        }
        Ok(Self {
            channels: self.channels,
            height,
            width,
            data,
        })
    }
}

/// Three planes in floats.
const WHOLE: Room = Room {
    each: 12,
    pixels: u64::MAX,
    advice: "; `max_side` N scales it down as it is read, which takes less",
};
/// Bytes a pixel of one plane beside what it is scaled down to.
const OF_ONE_PLANE: u64 = 8;

/// Whether red, green and blue may differ. (Grey floats are three equal channels: `image` has no other kind for them.)
fn has_colour(image: &DynamicImage) -> bool {
    match image {
        DynamicImage::ImageRgb32F(image) => {
            let mut pixels = image.pixels();
            !pixels.all(|pixel| pixel.0.iter().all(|v| v.to_bits() == pixel.0[0].to_bits()))
        }
        image => image.color().has_color(),
    }
}

/// One channel of all pixels in [0, 1].
fn plane(image: &DynamicImage, channel: usize) -> Vec<f32> {
    fn every<T: Copy>(samples: &[T], step: usize, from: usize, f: fn(T) -> f32) -> Vec<f32> {
        samples
            .iter()
            .skip(from)
            .step_by(step)
            .map(|&v| f(v))
            .collect()
    }
    let byte = |v: u8| f32::from(v) / 255.0;
    let word = |v: u16| f32::from(v) / 65535.0;
    match image {
        DynamicImage::ImageLuma8(i) => every(i.as_raw(), 1, channel, byte),
        DynamicImage::ImageLumaA8(i) => every(i.as_raw(), 2, channel, byte),
        DynamicImage::ImageRgb8(i) => every(i.as_raw(), 3, channel, byte),
        DynamicImage::ImageRgba8(i) => every(i.as_raw(), 4, channel, byte),
        DynamicImage::ImageLuma16(i) => every(i.as_raw(), 1, channel, word),
        DynamicImage::ImageLumaA16(i) => every(i.as_raw(), 2, channel, word),
        DynamicImage::ImageRgb16(i) => every(i.as_raw(), 3, channel, word),
        DynamicImage::ImageRgba16(i) => every(i.as_raw(), 4, channel, word),
        DynamicImage::ImageRgba32F(i) => every(i.as_raw(), 4, channel, |v| v),
        other => every(other.to_rgb32f().as_raw(), 3, channel, |v| v),
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn decode(bytes: &[u8]) -> Result<Picture> {
        Picture::decode(Path::new("test.png"), bytes)
    }

    #[test]
    fn a_picture_in_other_channels() {
        let colour = Picture {
            channels: 3,
            height: 1,
            width: 2,
            data: vec![0.0, 0.3, 0.6, 0.3, 0.9, 0.9],
        };
        let grey = colour.with_channels(1);
        assert_eq!((grey.channels, grey.height, grey.width), (1, 1, 2));
        assert!((grey.data[0] - 0.5).abs() < 1e-6 && (grey.data[1] - 0.5).abs() < 1e-6);
        let again = Picture {
            data: vec![0.25, 0.75],
            ..grey
        }
        .with_channels(3);
        assert_eq!(again.channels, 3);
        assert_eq!(again.data, [0.25, 0.75, 0.25, 0.75, 0.25, 0.75]);
        assert_eq!(colour.with_channels(3), colour);
    }

    /// Beside an edge the filter goes below black and beyond white.
    #[test]
    fn a_smaller_picture_is_as_dark_and_as_bright_at_most() {
        let (height, width) = (30, 40);
        let edges = |i: usize| f32::from(u8::from(i % width < 17 && i / width > 10));
        let picture = Picture {
            channels: 3,
            height,
            width,
            data: (0..3 * height * width)
                .map(|i| 0.25 + 0.5 * edges(i % (height * width)))
                .collect(),
        };
        let small = picture.scaled_down(13).unwrap();
        assert_eq!((small.channels, small.height, small.width), (3, 10, 13));
        assert!(small.data.iter().all(|v| (0.25..=0.75).contains(v)));
        assert!(small.data.contains(&0.25) && small.data.contains(&0.75));
        assert_eq!(picture.scaled_down(40).unwrap(), picture);
    }

    #[test]
    fn kinds_of_files() {
        let grey = DynamicImage::ImageLuma16(ImageBuffer::from_pixel(3, 2, Luma([32768])));
        let picture = decode(&png(&grey)).unwrap();
        assert_eq!((picture.channels, picture.height, picture.width), (1, 2, 3));
        assert!((picture.data[0] - 32768.0 / 65535.0).abs() < 1e-6);
        let rgba = RgbaImage::from_pixel(1, 1, Rgba([255, 0, 51, 9])).into();
        let picture = decode(&png(&rgba)).unwrap();
        assert_eq!(picture.data, [1.0, 0.0, 0.2]);
        assert_eq!(decode(&picture.to_png().unwrap()).unwrap(), picture);
    }
    /// Two pixels of every kind: colours apart, grey alone, transparency left out.
    #[test]
    fn every_kind_of_pixels_becomes_planes() {
        fn of<P: image::Pixel>(samples: Vec<P::Subpixel>) -> ImageBuffer<P, Vec<P::Subpixel>> {
            ImageBuffer::from_raw(2, 1, samples).unwrap()
        }
        use image::{LumaA, Rgb};
        // In fifths; the transparent ones are no part of what is wanted.
        let (grey, grey_alpha) = ([1, 5], [1, 2, 5, 3]);
        let (rgb, rgba) = ([1, 2, 3, 4, 5, 0], [1, 2, 3, 2, 4, 5, 0, 3]);
        let bytes = |v: &[u8]| v.iter().map(|v| v * 51).collect::<Vec<u8>>();
        let words = |v: &[u8]| {
            v.iter()
                .map(|v| u16::from(*v) * 13107)
                .collect::<Vec<u16>>()
        };
        let floats = |v: &[u8]| v.iter().map(|v| f32::from(*v) / 5.0).collect::<Vec<f32>>();
        let kinds: [DynamicImage; 10] = [
            of::<Luma<u8>>(bytes(&grey)).into(),
            of::<LumaA<u8>>(bytes(&grey_alpha)).into(),
            of::<Luma<u16>>(words(&grey)).into(),
            of::<LumaA<u16>>(words(&grey_alpha)).into(),
            of::<Rgb<u8>>(bytes(&rgb)).into(),
            of::<Rgba<u8>>(bytes(&rgba)).into(),
            of::<Rgb<u16>>(words(&rgb)).into(),
            of::<Rgba<u16>>(words(&rgba)).into(),
            of::<Rgb<f32>>(floats(&rgb)).into(),
            of::<Rgba<f32>>(floats(&rgba)).into(),
        ];
        for (i, image) in kinds.iter().enumerate() {
            let picture = Picture::from_image(Path::new("x"), image, None).unwrap();
            let wanted = match i < 4 {
                true => floats(&grey),
                false => floats(&[1, 4, 2, 5, 3, 0]),
            };
            assert_eq!((picture.height, picture.width), (1, 2), "{i}");
            assert_eq!(picture.data, wanted, "{i}");
        }
        // Three equal channels are grey.
        let equal = of::<Rgb<f32>>(floats(&[1, 1, 1, 5, 5, 5])).into();
        assert_eq!(
            Picture::from_image(Path::new("x"), &equal, None)
                .unwrap()
                .data,
            floats(&grey)
        );
    }

    #[test]
    fn a_png_has_the_nearest_levels_of_all_pixels() {
        let values = [-0.5, 0.0, 0.4999 / 255.0, 0.5001 / 255.0, 1.0, 1.5];
        let data = (0..3).flat_map(|c| values.map(|v| v + f32::from(c as u8) / 255.0));
        let picture = Picture {
            channels: 3,
            height: 2,
            width: 3,
            data: data.collect(),
        };
        let again = decode(&picture.to_png().unwrap()).unwrap();
        let levels = again.data.iter().map(|v| (v * 255.0).round() as u8);
        let wanted = [
            [0, 0, 0, 1, 255, 255],
            [0, 1, 1, 2, 255, 255],
            [0, 2, 2, 3, 255, 255],
        ];
        assert_eq!((again.height, again.width), (2, 3));
        assert_eq!(levels.collect::<Vec<_>>(), wanted.concat());
    }

    #[test]
    fn a_png_in_grey_is_as_wide_as_its_picture() {
        let grey = Picture {
            channels: 1,
            height: 2,
            width: 3,
            data: [0, 1, 2, 3, 4, 5]
                .map(|fifths| f32::from(fifths as u8) / 5.0)
                .to_vec(),
        };
        assert_eq!(decode(&grey.to_png().unwrap()).unwrap(), grey);
        let two = Picture {
            channels: 2,
            ..grey
        };
        assert_eq!(
            two.to_png().unwrap_err().to_string(),
            "a picture has 1 or 3 channels"
        );
    }
}
