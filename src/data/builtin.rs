//! The subset of Fashion-MNIST that comes with the program. See assets/fashion-mnist/README.md.

use std::path::Path;

use super::{Images, idx};
use crate::Result;

const DIR: &str = "assets/fashion-mnist";

/// Training and test images.
///
/// # Errors
/// None but bugs.
pub(super) fn fashion_mnist() -> Result<[Images; 2]> {
    Ok([
        pair(
            "train",
            include_bytes!("../../assets/fashion-mnist/train-images-idx3-ubyte.gz"),
            include_bytes!("../../assets/fashion-mnist/train-labels-idx1-ubyte.gz"),
        )?,
        pair(
            "t10k",
            include_bytes!("../../assets/fashion-mnist/t10k-images-idx3-ubyte.gz"),
            include_bytes!("../../assets/fashion-mnist/t10k-labels-idx1-ubyte.gz"),
        )?,
    ])
}

fn pair(split: &str, images: &[u8], labels: &[u8]) -> Result<Images> {
    let path = |what: &str| Path::new(DIR).join(format!("{split}-{what}-ubyte.gz"));
    idx::pair(&path("images-idx3"), images, &path("labels-idx1"), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_is_whole_and_balanced() {
        let [train, test] = fashion_mnist().unwrap();
        assert_eq!((train.len(), test.len()), (5800, 1000));
        for (images, each) in [(train, 580), (test, 100)] {
            for class in 0..10 {
                let count = images.labels.iter().filter(|&&l| l == class).count();
                assert_eq!(count, each);
            }
        }
    }
}
