//! What is done to an image on its way into a batch: where it is cropped, moved and flipped.
//!
//! All random numbers come from (seed, epoch, image) alone, so neither the number of threads nor
//! where a run was resumed changes a pixel.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How training images are changed at random. Evaluation changes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Augment {
    /// Not at all. Pictures from files: the shorter side is brought to 8/7 of the wanted size (256
    /// for 224) and the centre cut out.
    #[default]
    None,
    /// Moved by up to four pixels in both directions, the border filled with black, and mirrored
    /// half the time: what is usual for CIFAR.
    CropFlip,
    /// For pictures from files: a part of 8 % to 100 % of the area, of a shape between 3:4 and 4:3,
    /// brought to the wanted size, and mirrored half the time: what is usual for ImageNet.
    ResizedCropFlip,
}

/// How far [`Augment::CropFlip`] moves an image.
const PAD: isize = 4;

/// Random numbers of one image in one epoch.
pub(super) fn random(seed: u64, epoch: u64, image: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&(image as u64).to_le_bytes());
    // Tells these from the numbers that shuffle.
    key[24..].copy_from_slice(b"augment.");
    ChaCha8Rng::from_seed(key)
}

/// Where an image's pixels come from: the one at row y and column x from row y + `down` and column
/// x + `right`, columns counted from the other side if `mirrored`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) down: isize,
    pub(super) right: isize,
    pub(super) mirrored: bool,
}

impl Augment {
    /// A random placement.
    pub(super) fn placement(self, random: &mut ChaCha8Rng) -> Placement {
        let mirrored = self != Self::None && random.random_bool(0.5);
        let (mut down, mut right) = (0, 0);
        if self == Self::CropFlip {
            down = random.random_range(0..=2 * PAD as i32) as isize - PAD;
            right = random.random_range(0..=2 * PAD as i32) as isize - PAD;
        }
        Placement {
            down,
            right,
            mirrored,
        }
    }
}

/// Appends the planes of an image of `height` x `width`, moved and mirrored. What lies outside is 0: black.
pub(super) fn place<T: Copy + Default>(
    image: &[T],
    (height, width): (usize, usize),
    placement: Placement,
    out: &mut Vec<T>,
) {
    if placement == Placement::default() {
        out.extend_from_slice(image);
        return;
    }
    let Placement {
        down,
        right,
        mirrored,
    } = placement;
    // Of a row: how many pixels lie outside before and after those that show.
    let [before, after] = [-right, right].map(|n| width.min(n.max(0) as usize));
    let len = width.saturating_sub(before + after);
    let at = if mirrored { after } else { before };
    let start = out.len();
    out.resize(start + image.len(), T::default());
    let planes = out[start..].chunks_exact_mut(height * width);
    for (to, from) in planes.zip(image.chunks_exact(height * width)) {
        for (y, to) in to.chunks_exact_mut(width).enumerate() {
            let row = y.checked_add_signed(down).filter(|&row| row < height);
            if let (Some(row), 1..) = (row, len) {
                let (to, first) = (&mut to[at..at + len], row * width + after);
                to.copy_from_slice(&from[first..first + len]);
                if mirrored {
                    to.reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(down: isize, right: isize, mirrored: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let placement = Placement {
            down,
            right,
            mirrored,
        };
        place(&[1, 2, 3, 4, 5, 6], (2, 3), placement, &mut out);
        out
    }

    #[test]
    fn planes_are_moved_and_mirrored() {
        assert_eq!(placed(0, 0, false), [1, 2, 3, 4, 5, 6]);
        assert_eq!(placed(0, 0, true), [3, 2, 1, 6, 5, 4]);
        assert_eq!(placed(1, 0, false), [4, 5, 6, 0, 0, 0]);
        assert_eq!(placed(-1, 1, false), [0, 0, 0, 2, 3, 0]);
        assert_eq!(placed(0, -2, true), [1, 0, 0, 4, 0, 0]);
        assert_eq!(placed(4, 4, false), [0; 6]);
        // Floats, in two planes.
        let mut out = Vec::new();
        let placement = Placement {
            down: 0,
            right: 1,
            mirrored: false,
        };
        place(&[1.5, 2.5, 3.5, 4.5], (1, 2), placement, &mut out);
        assert_eq!(out, [2.5, 0.0, 4.5, 0.0]);
    }

    #[test]
    fn random_numbers_depend_on_seed_epoch_and_image_and_on_nothing_else() {
        let first = |seed, epoch, image| random(seed, epoch, image).random::<u64>();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let others = [first(2, 2, 3), first(1, 3, 3), first(1, 2, 4)];
        assert!(!others.contains(&first(1, 2, 3)));
    }

    #[test]
    fn crops_reach_every_place_and_half_are_mirrored() {
        let all: Vec<Placement> = (0..2000)
            .map(|i| Augment::CropFlip.placement(&mut random(1, 0, i)))
            .collect();
        for shift in -4..=4 {
            assert!(all.iter().any(|p| p.down == shift));
            assert!(all.iter().any(|p| p.right == shift));
        }
        assert!(all.iter().all(|p| p.down.abs() <= 4 && p.right.abs() <= 4));
        let mirrored = all.iter().filter(|p| p.mirrored).count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        let resized = |i| Augment::ResizedCropFlip.placement(&mut random(1, 0, i));
        let resized: Vec<Placement> = (0..2000).map(resized).collect();
        let mirrored = resized.iter().filter(|p| p.mirrored).count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        assert!(resized.iter().all(|p| (p.down, p.right) == (0, 0)));
        let none = Augment::None.placement(&mut random(1, 0, 0));
        assert_eq!(none, Placement::default());
    }
}
