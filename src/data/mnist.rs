//! MNIST and Fashion-MNIST: four IDX files in one folder.

use std::path::{Path, PathBuf};

use super::{DataOptions, Found, Images, Set, idx, not_found, places};
use crate::{Error, Result};

/// Files by which they are known.
pub(super) const SIGNATURE: &[&str] = &[
    "train-images-idx3-ubyte",
    "train-images-idx3-ubyte.gz",
    "train-images.idx3-ubyte",
    "train-images.idx3-ubyte.gz",
];

/// Training and test images from the first place that has any of them.
///
/// # Errors
/// [`Error::Data`] naming file and byte, [`Error::Io`].
pub(super) fn open(set: &Set, data_dir: Option<&Path>, _: &DataOptions) -> Result<Found> {
    let places = places(set, data_dir);
    let has = |dir: &Path, stem: &str| find(dir, stem, "idx3").is_some();
    let found = |dir: &&PathBuf| has(dir, "train-images") || has(dir, "t10k-images");
    let Some(dir) = places.iter().find(found) else {
        return Err(not_found(set, "train-images-idx3-ubyte[.gz]", &places));
    };
    let images = [read_pair(dir, "train")?, read_pair(dir, "t10k")?];
    Ok(Found::new(images))
}

/// `STEM-idx3-ubyte`, with a dot instead of the second dash, or gzipped.
fn find(dir: &Path, stem: &str, kind: &str) -> Option<PathBuf> {
    ["-", "."]
        .iter()
        .flat_map(|dash| ["", ".gz"].map(|end| format!("{stem}{dash}{kind}-ubyte{end}")))
        .map(|file| dir.join(file))
        .find(|path| path.is_file())
}

fn read_pair(dir: &Path, split: &str) -> Result<Images> {
    let path = |what: &str, kind: &str| {
        let stem = format!("{split}-{what}");
        find(dir, &stem, kind).ok_or_else(|| {
            let file = dir.join(format!("{stem}-{kind}-ubyte"));
            Error::data(file, "is missing (plain or with .gz)")
        })
    };
    let (images, labels) = (path("images", "idx3")?, path("labels", "idx1")?);
    let read = |p: &Path| std::fs::read(p).map_err(|e| Error::io(p, e));
    idx::pair(&images, &read(&images)?, &labels, &read(&labels)?)
}
