//! Pictures to what a network is given, one by one, as the test images of its data set are.

use image::RgbImage;

use super::resize::{CENTRE, resize};
use super::{Transform, normalised};

impl Transform {
    /// Appends the largest part in the middle of `picture` that has the shape of the network's images, less a border if
    /// it crops, in their size and normalised; for a grey network the mean of red, green and blue.
    pub(crate) fn append(&self, picture: &RgbImage, out: &mut Vec<f32>) -> Result<(), String> {
        let [channels, height, width] = self.shape;
        let (w, h) = (f64::from(picture.width()), f64::from(picture.height()));
        let aspect = width as f64 / height as f64;
        let share = if self.crops { CENTRE } else { 1.0 };
        let part = [share * w.min(h * aspect), share * h.min(w / aspect)];
        let place = [(w - part[0]) / 2.0, (h - part[1]) / 2.0];
        let part = [place[0], place[1], part[0], part[1]];
        let grey = (channels == 1).then(|| grey(picture));
        let picture = grey.as_ref().unwrap_or(picture);
        let mut planes = Vec::new();
        resize(picture, part, (height, width), &mut planes)?;
        planes.truncate(channels * height * width);
        let (mean, std) = (&self.mean, &self.std);
        let unit = |v: u8| f32::from(v) / 255.0;
        out.extend(normalised(&planes, unit, height * width, mean, std));
        Ok(())
    }
}

/// The means of red, green and blue, in all three.
fn grey(picture: &RgbImage) -> RgbImage {
    let mut grey = picture.clone();
    for pixel in grey.pixels_mut() {
        let sum: u16 = pixel.0.iter().map(|&v| u16::from(v)).sum();
        pixel.0 = [((sum + 1) / 3) as u8; 3];
    }
    grey
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::data::{Augment, augment};

    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (255 - x) as u8])
        })
    }

    fn transform(shape: [usize; 3], crops: bool) -> Transform {
        Transform {
            shape,
            mean: vec![0.0; shape[0]],
            std: vec![1.0 / 255.0; shape[0]],
            crops,
        }
    }

    fn applied(transform: &Transform, picture: &RgbImage) -> Vec<f32> {
        let mut out = Vec::new();
        transform.append(picture, &mut out).unwrap();
        out.iter().map(|v| v.round()).collect()
    }

    #[test]
    fn a_picture_of_the_size_of_the_images_stays_as_it_is() {
        let picture = pattern(28, 28);
        let out = applied(&transform([3, 28, 28], false), &picture);
        for (c, plane) in out.chunks(28 * 28).enumerate() {
            let wanted: Vec<f32> = picture.pixels().map(|p| f32::from(p.0[c])).collect();
            assert_eq!(plane, wanted);
        }
        let grey: Vec<f32> = out[..784]
            .iter()
            .zip(&out[784..1568])
            .zip(&out[1568..])
            .map(|((r, g), b)| ((r + g + b) / 3.0).round())
            .collect();
        assert_eq!(applied(&transform([1, 28, 28], false), &picture), grey);
    }

    #[test]
    fn pictures_of_folders_are_cut_as_the_loader_cuts_them() {
        let picture = pattern(50, 31);
        let part = Augment::None.part(50, 31, &mut augment::random(0, 0, 0));
        let mut planes = Vec::new();
        resize(&picture, part, (16, 16), &mut planes).unwrap();
        let wanted: Vec<f32> = planes.iter().map(|&p| f32::from(p)).collect();
        assert_eq!(applied(&transform([3, 16, 16], true), &picture), wanted);
    }

    #[test]
    fn the_middle_has_the_shape_of_the_images() {
        // Columns 2 to 5 of 8, then rows 2 to 5 of 8.
        let wide = RgbImage::from_fn(8, 4, |x, _| Rgb([x as u8; 3]));
        assert_eq!(
            applied(&transform([1, 4, 4], false), &wide)[..4],
            [2.0, 3.0, 4.0, 5.0]
        );
        let high = RgbImage::from_fn(4, 8, |_, y| Rgb([y as u8; 3]));
        let out = applied(&transform([1, 2, 4], false), &high);
        assert_eq!(out, [3.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0, 4.0]);
    }
}
