//! Labelled images: where they are, not how they are made into batches.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Augment, augment, resize};
use crate::{Error, Result};

/// Labelled images that the network sees in one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Where they come from.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Rows in pixels.
    pub height: usize,
    /// Columns in pixels.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
    /// The images themselves.
    pub source: Source,
    /// Class of each image.
    pub labels: Vec<u16>,
}

/// Where images are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// In memory: [N, C, H, W], 0 to 255, which stand for 0 to 1.
    Bytes(Vec<u8>),
    /// In memory: [N, C, H, W], any finite numbers.
    Floats(Vec<f32>),
    /// In files, one an image, decoded whenever they are needed.
    Files(Vec<PathBuf>),
}

/// Values of images, [N, C, H, W], as their source has them: before normalisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// 0 to 255, which stand for 0 to 1: of bytes in memory and of files.
    Bytes(Vec<u8>),
    /// Of floats in memory.
    Floats(Vec<f32>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Pixels {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

impl From<Vec<u8>> for Source {
    fn from(pixels: Vec<u8>) -> Self {
        Self::Bytes(pixels)
    }
}

impl From<Vec<f32>> for Source {
    fn from(values: Vec<f32>) -> Self {
        Self::Floats(values)
    }
}

impl Images {
    /// Images of your own, from memory: `values` [N, C, H, W], a `Vec` of bytes or floats, with a label below `classes` for
    /// each. What is no image has a shape too: rows of F features are [F, 1, 1]. Pictures in files
    /// ([`Source::Files`]) are brought to this size when they are needed; they have 3 channels.
    ///
    /// # Errors
    /// [`Error::Data`] if a size is 0, the values are not N images, a value is not finite or a label is no class.
    pub fn new(
        values: impl Into<Source>,
        [channels, height, width]: [usize; 3],
        labels: Vec<u16>,
        classes: usize,
    ) -> Result<Self> {
        let images = Self {
            name: "images in memory".into(),
            channels,
            height,
            width,
            classes,
            source: values.into(),
            labels,
        };
        images.check()?;
        Ok(images)
    }

    /// Whether it is what [`Images::new`] makes.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::data(&self.name, message));
        let shape = [self.channels, self.height, self.width];
        let len = shape
            .iter()
            .try_fold(1, |len: usize, &n| len.checked_mul(n));
        let (count, len) = (self.len(), len.unwrap_or(usize::MAX));
        if count == 0 || len == 0 || self.classes == 0 {
            let classes = self.classes;
            return fail(format!(
                "{count} images of {shape:?} and {classes} classes: there must be one of each at least"
            ));
        }
        if matches!(self.source, Source::Files(_)) && self.channels != 3 {
            return fail(format!(
                "{shape:?} has {} channels: pictures in files have 3",
                self.channels
            ));
        }
        let (given, wanted) = match &self.source {
            Source::Bytes(bytes) => (bytes.len(), count.checked_mul(len)),
            Source::Floats(values) => (values.len(), count.checked_mul(len)),
            Source::Files(files) => (files.len(), Some(count)),
        };
        if wanted != Some(given) {
            return fail(format!(
                "there are {given} values and {count} labels: an image of {shape:?} has {len} values"
            ));
        }
        let is_none = |&label: &u16| usize::from(label) >= self.classes;
        if let Some(i) = self.labels.iter().position(is_none) {
            let (label, classes) = (self.labels[i], self.classes);
            return fail(format!(
                "the label of image {i} is {label}: with {classes} classes labels are 0 to {}",
                classes - 1
            ));
        }
        if let Source::Floats(values) = &self.source
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            return fail(format!(
                "value {} of image {} is {}",
                at % len,
                at / len,
                values[at]
            ));
        }
        Ok(())
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values of one image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether they are bytes before normalisation, not floats.
    pub fn are_bytes(&self) -> bool {
        !matches!(self.source, Source::Floats(_))
    }

    /// Image `i`, [C, H, W], before normalisation, and its label. A picture in a file is decoded, and brought to the size
    /// of the images as one for evaluation.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no such image or its file is no picture, [`Error::Io`] if that cannot be read.
    pub fn image(&self, i: usize) -> Result<(Pixels, u16)> {
        let len = self.image_len();
        let range = i.saturating_mul(len)..i.saturating_add(1).saturating_mul(len);
        let none = || Error::data(&self.name, format!("there is no image {i}"));
        let pixels = match &self.source {
            Source::Bytes(bytes) => Pixels::Bytes(bytes.get(range).ok_or_else(none)?.to_vec()),
            Source::Floats(values) => Pixels::Floats(values.get(range).ok_or_else(none)?.to_vec()),
            Source::Files(paths) => {
                let path = paths.get(i).ok_or_else(none)?;
                // Nothing of it is random.
                let mut random = augment::random(0, 0, i);
                Pixels::Bytes(self.read(path, Augment::None, &mut random)?)
            }
        };
        Ok((pixels, *self.labels.get(i).ok_or_else(none)?))
    }

    /// The part of a picture in a file that `augment` chooses, brought to the size of the images, [3, H, W].
    pub(super) fn read(
        &self,
        path: &Path,
        augment: Augment,
        random: &mut ChaCha8Rng,
    ) -> Result<Vec<u8>> {
        let mut planes = Vec::new();
        let size = (self.height, self.width);
        resize::read(path, augment, random, size, &mut planes)?;
        Ok(planes)
    }

    /// So many of the images, the first of an order that is random but always the same; all if
    /// there are no more.
    #[must_use]
    pub fn subset(&self, count: usize) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
        order.truncate(count);
        let len = self.image_len();
        let source = match &self.source {
            Source::Bytes(bytes) => Source::Bytes(some_of(bytes, len, &order)),
            Source::Floats(values) => Source::Floats(some_of(values, len, &order)),
            Source::Files(paths) => {
                Source::Files(order.iter().map(|&i| paths[i].clone()).collect())
            }
        };
        Self {
            name: self.name.clone(),
            labels: order.iter().map(|&i| self.labels[i]).collect(),
            source,
            ..*self
        }
    }
}

/// The images with the numbers in `order`, of `len` values each.
fn some_of<T: Copy>(values: &[T], len: usize, order: &[usize]) -> Vec<T> {
    let image = |&i: &usize| &values[i * len..(i + 1) * len];
    order.iter().flat_map(image).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_is_the_same_again_and_keeps_labels_with_images() {
        let all = Images {
            name: "test".into(),
            channels: 1,
            height: 1,
            width: 2,
            classes: 100,
            source: Source::Bytes((0..100).flat_map(|i| [i, i]).collect()),
            labels: (0..100).collect(),
        };
        let some = all.subset(7);
        assert_eq!(some, all.subset(7));
        let Source::Bytes(bytes) = &some.source else {
            panic!("bytes became files")
        };
        let expected: Vec<u8> = some.labels.iter().flat_map(|&l| [l as u8; 2]).collect();
        assert_eq!((some.len(), bytes), (7, &expected));
        assert_eq!(all.subset(7).labels, all.subset(9).labels[..7]);
        assert_eq!(all.subset(1000).len(), 100);
    }
}
