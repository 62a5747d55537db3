//! Pictures of any size to the size of a network's images: which part of them, and how it is resized.

use std::path::Path;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Augment;
use crate::decode::{self, Room};
use crate::{Error, Result};

/// Bytes of a pixel that is resized.
const OF_RGB: u64 = 3;

/// Share of the shorter side that the centre crop takes.
pub(super) const CENTRE: f64 = 224.0 / 256.0;

impl Augment {
    /// The part of a picture that is brought to the wanted size: left, top, width, height in
    /// pixels.
    pub(super) fn part(self, width: u32, height: u32, random: &mut ChaCha8Rng) -> [f64; 4] {
        match self {
            Self::ResizedCropFlip => random_part(width, height, random),
            Self::None | Self::CropFlip => {
                let (width, height) = (f64::from(width), f64::from(height));
                let side = CENTRE * width.min(height);
                [(width - side) / 2.0, (height - side) / 2.0, side, side]
            }
        }
    }
}

/// Appends the picture in a file to `planes`: the part that `augment` takes of it, brought to `size`.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is no whole picture.
pub(super) fn read(
    path: &Path,
    augment: Augment,
    random: &mut ChaCha8Rng,
    size: (usize, usize),
    planes: &mut Vec<u8>,
) -> Result<()> {
    // Its share of the memory of pictures is held until it is resized.
    let decoded = decode::read(path, Room::of(OF_RGB))?;
    let picture = decoded.image.into_rgb8();
    let part = augment.part(picture.width(), picture.height(), random);
    resize(&picture, part, size, planes).map_err(|e| Error::data(path, e))
}

/// As torchvision's `RandomResizedCrop`: ten tries, then the largest part of an allowed shape.
fn random_part(width: u32, height: u32, random: &mut ChaCha8Rng) -> [f64; 4] {
    const RATIO: f64 = 4.0 / 3.0;
    let area = f64::from(width) * f64::from(height);
    for _ in 0..10 {
        let target = area * random.random_range(0.08..=1.0);
        let ratio = random.random_range(-RATIO.ln()..=RATIO.ln()).exp();
        let w = (target * ratio).sqrt().round() as u32;
        let h = (target / ratio).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = random.random_range(0..=height - h);
            let left = random.random_range(0..=width - w);
            return [left, top, w, h].map(f64::from);
        }
    }
    let (width, height) = (f64::from(width), f64::from(height));
    let w = width.min((height * RATIO).round());
    let h = height.min((width * RATIO).round());
    [
        ((width - w) / 2.0).floor(),
        ((height - h) / 2.0).floor(),
        w,
        h,
    ]
}

/// Appends `part` of a picture to `planes`, brought to `height` x `width`, as planes [3, H, W].
///
/// Bilinear with the support that shrinking needs, as Pillow does it. Four to seven times as fast
/// as `image`'s own on ImageNet's sizes, where that took longer than decoding (docs/benchmarks.md).
pub(super) fn resize(
    picture: &RgbImage,
    [left, top, w, h]: [f64; 4],
    (height, width): (usize, usize),
    planes: &mut Vec<u8>,
) -> Result<(), String> {
    let source = ImageRef::new(
        picture.width(),
        picture.height(),
        picture.as_raw(),
        PixelType::U8x3,
    )
    .map_err(|e| e.to_string())?;
    let mut resized = Image::new(width as u32, height as u32, PixelType::U8x3);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left, top, w, h);
    Resizer::new()
        .resize(&source, &mut resized, &options)
        .map_err(|e| e.to_string())?;
    for channel in 0..3 {
        planes.extend(resized.buffer().iter().skip(channel).step_by(3));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::augment::random;
    use super::*;

    #[test]
    fn random_parts_lie_inside_and_have_the_shapes_asked_for() {
        for (width, height) in [(500, 375), (1, 1), (1, 300), (2000, 3), (224, 224)] {
            let (mut areas, mut wide) = (Vec::new(), 0);
            for i in 0..500 {
                let [x, y, w, h] = random_part(width, height, &mut random(1, 0, i));
                assert!(x >= 0.0 && y >= 0.0 && w >= 1.0 && h >= 1.0);
                assert!(x + w <= width.into() && y + h <= height.into());
                areas.push(w * h / f64::from(width * height));
                wide += usize::from(w > h);
                if width.min(height) > 100 {
                    assert!((0.74..1.35).contains(&(w / h)), "{w} {h}");
                }
            }
            if width.min(height) > 100 {
                areas.sort_by(f64::total_cmp);
                assert!(areas[0] > 0.07 && areas[0] < 0.1, "{}", areas[0]);
                assert!((0.35..0.6).contains(&areas[250]), "{}", areas[250]);
                // As often wide as high where both have the same room.
                let expected = if width == height { 200..300 } else { 200..400 };
                assert!(expected.contains(&wide), "{wide}");
            }
        }
    }

    #[test]
    fn the_centre_is_that_of_resizing_to_256_and_cropping_224() {
        let part = Augment::None.part(512, 256, &mut random(0, 0, 0));
        assert_eq!(part, [144.0, 16.0, 224.0, 224.0]);
        let picture = RgbImage::from_fn(512, 256, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let mut planes = Vec::new();
        resize(&picture, part, (224, 224), &mut planes).unwrap();
        assert_eq!(planes.len(), 3 * 224 * 224);
        assert_eq!((planes[0], planes[224 * 224]), (144, 16));
        assert!(planes[2 * 224 * 224..].iter().all(|&p| p == 7));
    }

    #[test]
    fn a_picture_of_one_pixel_fills_any_size() {
        let picture = RgbImage::from_pixel(1, 1, image::Rgb([9, 8, 7]));
        for augment in [Augment::None, Augment::ResizedCropFlip] {
            let part = augment.part(1, 1, &mut random(0, 0, 0));
            let mut planes = Vec::new();
            resize(&picture, part, (4, 4), &mut planes).unwrap();
            assert_eq!(planes, [[9; 16], [8; 16], [7; 16]].concat());
        }
    }

    /// No part of 8 % or more has an allowed shape: the largest that has one lies in the middle.
    #[test]
    fn pictures_too_long_for_any_part_give_their_middle() {
        for (width, height, wanted) in [
            (2000, 3, [998.0, 0.0, 4.0, 3.0]),
            (3, 2001, [0.0, 998.0, 3.0, 4.0]),
        ] {
            for i in 0..20 {
                let part = random_part(width, height, &mut random(1, 0, i));
                assert_eq!(part, wanted, "{width} x {height}");
            }
        }
    }
}
