//! Labelled images: where they are, not how they are made into batches.

use std::path::PathBuf;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Labelled images that the network sees in one size.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In memory: [N, C, H, W], 0 to 255.
    Bytes(Vec<u8>),
    /// In files, one an image, decoded whenever they are needed.
    Files(Vec<PathBuf>),
}

impl Images {
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

    /// So many of the images, the first of an order that is random but always the same; all if
    /// there are no more.
    #[must_use]
    pub fn subset(&self, count: usize) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
        order.truncate(count);
        let len = self.image_len();
        let source = match &self.source {
            Source::Bytes(bytes) => {
                let image = |&i: &usize| &bytes[i * len..(i + 1) * len];
                Source::Bytes(order.iter().flat_map(image).copied().collect())
            }
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
