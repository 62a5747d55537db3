//! Data sets and batches, in host memory only.
//!
//! File -> [`idx`] -> [`Images`] (bytes, NCHW) -> [`Loader`] (a thread: order, normalisation,
//! batches) -> the training loop.

mod builtin;
pub mod idx;
mod loader;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Result};
pub use loader::{Batch, Loader, LoaderConfig};

/// Labelled images of one size.
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
    /// NCHW, 0 to 255.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u8>,
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

    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Training and test images, and how pixels are normalised: (pixel / 255 - mean) / std.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// For training.
    pub train: Arc<Images>,
    /// For evaluation.
    pub test: Arc<Images>,
    /// Per channel.
    pub mean: Vec<f32>,
    /// Per channel.
    pub std: Vec<f32>,
}

/// Where distributions put data sets (Debian: package dataset-fashion-mnist).
const SYSTEM: &str = "/usr/share/datasets";

/// Opens `fashion-mnist` or `mnist`.
///
/// With `data_dir`, its four IDX files (plain or gzipped) are looked for there and in the folder
/// of the set's name below. Without it, Fashion-MNIST is the built-in subset of 5 800 + 1 000
/// images, so that two machines give the same numbers, and MNIST is looked for in
/// /usr/share/datasets/mnist.
///
/// # Errors
/// [`Error::Data`] naming file and byte, [`Error::Config`] for an unknown name.
pub fn open(name: &str, data_dir: Option<&Path>) -> Result<DataSet> {
    let (mean, std) = match name {
        "fashion-mnist" => (0.0, 1.0),
        "mnist" => (0.1307, 0.3081),
        _ => {
            return Err(Error::Config(format!(
                "no data set is called {name:?}; there are fashion-mnist and mnist"
            )));
        }
    };
    let [train, test] = match (name, data_dir) {
        ("fashion-mnist", None) => builtin::fashion_mnist()?,
        _ => from_folders(name, data_dir)?,
    };
    let size = |i: &Images| (i.channels, i.height, i.width);
    if size(&train) != size(&test) {
        let (a, b) = (size(&train), size(&test));
        let message = format!("test images are {b:?}, training images {a:?}");
        return Err(Error::data(&test.name, message));
    }
    Ok(DataSet {
        train: Arc::new(train),
        test: Arc::new(test),
        mean: vec![mean],
        std: vec![std],
    })
}

/// Where the system has the whole of `name`, of which [`open`] without `data_dir` would take the
/// built-in subset.
pub fn whole_set(name: &str) -> Option<PathBuf> {
    let dir = Path::new(SYSTEM).join(name);
    let is_there = find(&dir, "train-images", "idx3").is_some();
    (name == "fashion-mnist" && is_there).then_some(dir)
}

fn from_folders(name: &str, data_dir: Option<&Path>) -> Result<[Images; 2]> {
    let folders: Vec<PathBuf> = match data_dir {
        Some(dir) => vec![dir.to_path_buf(), dir.join(name)],
        None => vec![Path::new(SYSTEM).join(name)],
    };
    let found = folders.iter().find(|dir| {
        find(dir, "train-images", "idx3").is_some() || find(dir, "t10k-images", "idx3").is_some()
    });
    let Some(dir) = found else {
        let tried: Vec<String> = folders.iter().map(|d| d.display().to_string()).collect();
        let hint = match name {
            "fashion-mnist" => " (on Debian, apt install dataset-fashion-mnist puts them there)",
            _ => "",
        };
        let place = data_dir.unwrap_or(Path::new(SYSTEM));
        return Err(Error::data(
            place,
            format!(
                "no train-images-idx3-ubyte[.gz] in {}. Put the four IDX files of {name} into a \
                 folder and give it as --data-dir{hint}",
                tried.join(" or ")
            ),
        ));
    };
    Ok([read_pair(dir, "train")?, read_pair(dir, "t10k")?])
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
