//! Data sets and batches, in host memory only.
//!
//! Files -> [`idx`], `cifar` or `folder` -> [`Images`] -> [`Loader`] (threads: order, decoding,
//! augmentation, batches) -> the training loop, whose graph normalises. Which sets there are: [`SETS`].

mod augment;
#[cfg(feature = "builtin-data")]
mod builtin;
#[cfg(feature = "pictures")]
mod check;
mod cifar;
#[cfg(feature = "fetch")]
mod fetch;
mod folder;
pub mod idx;
mod images;
mod loader;
mod mnist;
#[cfg(feature = "pictures")]
mod resize;
#[cfg(not(feature = "pictures"))]
#[path = "no_pictures.rs"]
mod resize;
mod sets;
#[cfg(feature = "pictures")]
mod transform;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Result};
pub use augment::Augment;
#[cfg(feature = "pictures")]
pub use check::{Findings, check};
#[cfg(feature = "fetch")]
pub use fetch::{BASE_VARIABLE, fetch};
pub use folder::pictures_below;
pub use images::{Images, Pixels, Source};
pub use loader::{Batch, Loader, LoaderConfig};
pub(crate) use sets::FOLDER;
pub use sets::{Download, SETS, Set, find as find_set};

/// What is taken of a data set, and how it is loaded.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Rows and columns that the pictures of a folder are brought to.
    pub image_size: usize,
    /// Whether training images are changed at random in the way that is usual for the set.
    pub augment: bool,
    /// Only so many training images, chosen at random but always the same.
    pub train_images: Option<usize>,
    /// The same for test images.
    pub test_images: Option<usize>,
    /// Loader threads; 0: as [`LoaderConfig::workers`].
    pub workers: usize,
    /// Go on without images that cannot be read.
    pub skip_bad: bool,
    /// Only the test images are wanted: a folder without train/ has those of val/ as its training images too.
    pub test_only: bool,
    /// Names of the classes in the order of their numbers, as a network knows them: a folder's classes must be these, or
    /// with `test_only` some of these.
    pub class_names: Option<Vec<String>>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            image_size: 224,
            augment: true,
            train_images: None,
            test_images: None,
            workers: 0,
            skip_bad: false,
            test_only: false,
            class_names: None,
        }
    }
}

/// Training and test images, and how pixels are normalised: (pixel / 255 - mean) / std, floats as (value - mean) / std.
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
    /// Of training images.
    pub augment: Augment,
    /// Names of the classes in the order of their numbers.
    pub class_names: Vec<String>,
    /// What the user should know of it: images that are missing.
    pub notices: Vec<String>,
    workers: usize,
    skip_bad: bool,
}

impl DataSet {
    /// Images of your own, for training and for testing, of one size and with the same classes. A value v of channel c is
    /// given to the network as (v - `mean[c]`) / `std[c]`, where bytes are first divided by 255. Training images are not
    /// changed at random, unless `augment` is set to it. Classes have the names that `class_names` is set to: a saved network
    /// keeps them ([`crate::train::Predictor::class_names`]).
    ///
    /// # Errors
    /// [`Error::Data`] if the images differ in size or number of classes, or `mean` and `std` are not one finite number a
    /// channel, those of `std` above 0.
    pub fn new(train: Images, test: Images, mean: &[f32], std: &[f32]) -> Result<Self> {
        train.check()?;
        test.check()?;
        let size = |i: &Images| ([i.channels, i.height, i.width], i.classes);
        let ((shape, classes), of_test) = (size(&train), size(&test));
        if (shape, classes) != of_test {
            return Err(Error::data(
                &test.name,
                format!(
                    "test images are {:?} of {} classes, training images {shape:?} of {classes}",
                    of_test.0, of_test.1
                ),
            ));
        }
        let channels = train.channels;
        let is_scale = |std: &f32| std.is_finite() && *std > 0.0;
        if mean.len() != channels
            || std.len() != channels
            || !mean.iter().all(|m| m.is_finite())
            || !std.iter().all(is_scale)
        {
            return Err(Error::data(
                &train.name,
                format!(
                    "means {mean:?} and standard deviations {std:?} for {channels} channels: one finite number of each a \
                     channel is wanted, and deviations above 0"
                ),
            ));
        }
        Ok(Self {
            train: Arc::new(train),
            test: Arc::new(test),
            mean: mean.to_vec(),
            std: std.to_vec(),
            augment: Augment::None,
            class_names: Vec::new(),
            notices: Vec::new(),
            workers: 0,
            skip_bad: false,
        })
    }

    /// Full batches of training images for ever, beginning with batch number `start` of the run.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made.
    pub fn train_loader(&self, batch_size: usize, seed: u64, start: u64) -> Result<Loader> {
        self.train_loader_of([0, 1], batch_size, seed, start)
    }

    /// As [`DataSet::train_loader`], of one of so many equal parts of each batch.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made, or cut so.
    pub(crate) fn train_loader_of(
        &self,
        part: [usize; 2],
        batch_size: usize,
        seed: u64,
        start: u64,
    ) -> Result<Loader> {
        let config = LoaderConfig {
            batch_size,
            shuffle: true,
            seed,
            drop_last: true,
            epochs: None,
            start,
            augment: self.augment,
            workers: self.workers,
            skip_bad: self.skip_bad,
            part,
        };
        Loader::new(Arc::clone(&self.train), config)
    }

    /// Full batches of training images once, in order and not changed.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made.
    pub(crate) fn train_loader_in_order(&self, batch_size: usize) -> Result<Loader> {
        let config = LoaderConfig {
            batch_size,
            drop_last: true,
            workers: self.workers,
            skip_bad: self.skip_bad,
            ..LoaderConfig::default()
        };
        Loader::new(Arc::clone(&self.train), config)
    }

    /// All test images once, in order.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made.
    pub fn test_loader(&self, batch_size: usize) -> Result<Loader> {
        self.test_loader_of([0, 1], batch_size)
    }

    /// As [`DataSet::test_loader`], of one of so many equal parts of each batch.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made, or cut so.
    pub(crate) fn test_loader_of(&self, part: [usize; 2], batch_size: usize) -> Result<Loader> {
        let config = LoaderConfig {
            batch_size,
            part,
            workers: self.workers,
            skip_bad: self.skip_bad,
            ..LoaderConfig::default()
        };
        Loader::new(Arc::clone(&self.test), config)
    }

    /// Images [N, C, H, W] as a network takes them: what the graph of a step makes of them on the device.
    pub fn normalise(&self, images: &Pixels) -> Vec<f32> {
        let plane = self.train.height * self.train.width;
        let (mean, std) = (&self.mean, &self.std);
        match images {
            Pixels::Bytes(bytes) => normalised(bytes, |v| f32::from(v) / 255.0, plane, mean, std),
            Pixels::Floats(values) => normalised(values, |v| v, plane, mean, std),
        }
    }
}

/// Values of images, whose channels have `plane` values, less the mean and divided by the deviation of their channel.
fn normalised<T: Copy>(
    images: &[T],
    value: impl Fn(T) -> f32,
    plane: usize,
    mean: &[f32],
    std: &[f32],
) -> Vec<f32> {
    let scales = mean.iter().zip(std).cycle();
    let mut out = Vec::with_capacity(images.len());
    for (plane, (mean, std)) in images.chunks(plane.max(1)).zip(scales) {
        out.extend(plane.iter().map(|&v| (value(v) - mean) / std));
    }
    out
}

/// How a picture becomes the input of a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transform {
    /// [C, H, W]; C is 1 or 3.
    pub(crate) shape: [usize; 3],
    /// Per channel, of pixels in [0, 1].
    pub(crate) mean: Vec<f32>,
    /// Per channel.
    pub(crate) std: Vec<f32>,
    /// Whether a border is cut off, as it is from the pictures of a folder.
    pub(crate) crops: bool,
}

/// Where `data fetch` puts data sets, below the folder of work.
pub const DIR: &str = "data";

/// Where distributions put data sets (Debian: package dataset-fashion-mnist).
const SYSTEM: &str = "/usr/share/datasets";

/// Opens a set of [`SETS`] by its name.
///
/// Its files are looked for in `data_dir`, or without it in [`DIR`] and in /usr/share/datasets,
/// each time there and in the folders of the set's name and of its archive below. Without
/// `data_dir`, Fashion-MNIST is the built-in subset of 5 800 + 1 000 images (with the feature `builtin-data`), so that two machines
/// give the same numbers.
///
/// # Errors
/// [`Error::Data`] naming file and byte, [`Error::Io`], [`Error::Config`] for an unknown name.
pub fn open(name: &str, data_dir: Option<&Path>, options: &DataOptions) -> Result<DataSet> {
    let set = find_set(name)?;
    let Found {
        train,
        test,
        class_names,
        notices,
    } = match (set.builtin, data_dir) {
        (Some(builtin), None) => Found::new(builtin()?),
        _ => (set.open)(set, data_dir, options)?,
    };
    let of_set = || set.class_names.iter().map(|n| (*n).to_string()).collect();
    let size = |i: &Images| (i.channels, i.height, i.width);
    if size(&train) != size(&test) {
        let (a, b) = (size(&train), size(&test));
        let message = format!("test images are {b:?}, training images {a:?}");
        return Err(Error::data(&test.name, message));
    }
    let some_of = |images: Images, count: Option<usize>| match count {
        Some(count) => images.subset(count),
        None => images,
    };
    Ok(DataSet {
        train: Arc::new(some_of(train, options.train_images)),
        test: Arc::new(some_of(test, options.test_images)),
        mean: set.mean.to_vec(),
        std: set.std.to_vec(),
        augment: match options.augment {
            true => set.augment,
            false => Augment::None,
        },
        class_names: class_names.unwrap_or_else(of_set),
        notices,
        workers: options.workers,
        skip_bad: options.skip_bad,
    })
}

/// What the files of a set hold.
struct Found {
    train: Images,
    test: Images,
    /// In the order of their numbers, where the files name them.
    class_names: Option<Vec<String>>,
    /// See [`DataSet::notices`].
    notices: Vec<String>,
}

impl Found {
    /// Images of which there is nothing to say.
    fn new([train, test]: [Images; 2]) -> Self {
        Self {
            train,
            test,
            class_names: None,
            notices: Vec::new(),
        }
    }
}

/// Shape [C, H, W] of an image and number of classes, without opening the images: for a folder,
/// its classes are counted, or with no `data_dir` taken to be ImageNet's.
///
/// # Errors
/// [`Error::Config`] for an unknown name, those of reading the folder.
pub fn shape(
    name: &str,
    data_dir: Option<&Path>,
    image_size: usize,
) -> Result<([usize; 3], usize)> {
    let set = find_set(name)?;
    match (set.shape, data_dir) {
        (Some(shape), _) => Ok((shape, set.classes)),
        (None, None) => Ok(([3, image_size, image_size], set.classes)),
        (None, Some(dir)) => {
            let classes = folder::classes(dir)?.len();
            Ok(([3, image_size, image_size], classes))
        }
    }
}

/// Where the system has the whole of `name`, of which [`open`] without `data_dir` would take the
/// built-in subset.
pub fn whole_set(name: &str) -> Option<PathBuf> {
    let set = find_set(name).ok().filter(|set| set.builtin.is_some())?;
    let mut places = places(set, None).into_iter();
    places.find(|dir| set.lies_in(dir))
}

/// Folders in which the files of `set` may be.
fn places(set: &Set, data_dir: Option<&Path>) -> Vec<PathBuf> {
    let roots = match data_dir {
        Some(dir) => vec![dir],
        None => vec![Path::new(DIR), Path::new(SYSTEM)],
    };
    // Where archives unpack to, and where torchvision puts files.
    let mut inside = vec![PathBuf::new()];
    inside.extend(set.folder.map(PathBuf::from));
    if let Some(folder) = set.torchvision {
        inside.extend(["raw".into(), Path::new(folder).join("raw")]);
    }
    let mut places = Vec::new();
    for root in roots {
        for dir in [root.to_path_buf(), root.join(set.name)] {
            places.extend(inside.iter().map(|name| dir.join(name)));
        }
    }
    // An archive's folder in a folder of any name.
    if let (Some(folder), Some(dir)) = (set.folder, data_dir) {
        let below = folder::entries(dir).unwrap_or_default();
        let below = below.iter().filter(|path| path.is_dir());
        places.extend(below.map(|path| path.join(folder)));
    }
    places
}

/// The error for a set whose files are in none of `tried`.
fn not_found(set: &Set, wanted: &str, tried: &[PathBuf]) -> Error {
    let names: Vec<String> = tried.iter().map(|d| d.display().to_string()).collect();
    let place = tried.first().map_or(Path::new(DIR), PathBuf::as_path);
    let message = format!(
        "no {wanted} in {}. `decorr data fetch {}` downloads it into {DIR}/; files from elsewhere: \
         give their folder as `data_dir`",
        names.join(" or "),
        set.name
    );
    Error::data(place, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_two_sizes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for (split, [h, w]) in [("train", [4, 2]), ("t10k", [1, 3])] {
            let images = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, h, 0, 0, 0, w];
            let images = [&images[..], &vec![9; usize::from(h * w)]].concat();
            let file = |what: &str| dir.path().join(format!("{split}-{what}-ubyte"));
            std::fs::write(file("images-idx3"), images).unwrap();
            std::fs::write(file("labels-idx1"), [0, 0, 8, 1, 0, 0, 0, 1, 5]).unwrap();
        }
        let refused = open("mnist", Some(dir.path()), &DataOptions::default());
        let error = refused.unwrap_err().to_string();
        let wanted = "test images are (1, 1, 3), training images (1, 4, 2)";
        assert!(error.ends_with(wanted), "{error}");
    }

    #[test]
    fn the_shape_of_a_set_is_known_without_its_images() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["a", "b", "c"] {
            std::fs::create_dir_all(dir.path().join("train").join(class)).unwrap();
        }
        let given = Some(dir.path());
        for (name, dir, wanted) in [
            ("mnist", None, ([1, 28, 28], 10)),
            ("mnist", given, ([1, 28, 28], 10)),
            ("cifar100", None, ([3, 32, 32], 100)),
            ("folder", None, ([3, 48, 48], 1000)),
            ("folder", given, ([3, 48, 48], 3)),
        ] {
            assert_eq!(shape(name, dir, 48).unwrap(), wanted, "{name}");
        }
    }
}
