//! The table of data sets: all that differs between them. Formats of files are in files of their own.

use std::path::Path;

#[cfg(feature = "builtin-data")]
use super::builtin;
use super::cifar::{self, Files};
use super::{Augment, DataOptions, Found, Images, folder, mnist};
use crate::{Error, Result};

/// A data set as `--data` names it.
#[derive(Debug)]
pub struct Set {
    /// For `--data` and for folders.
    pub name: &'static str,
    /// One line for `--help` and `data list`.
    pub about: &'static str,
    /// [C, H, W]; `None` where files decide.
    pub shape: Option<[usize; 3]>,
    /// Number of classes; of a folder, those of ImageNet.
    pub classes: usize,
    /// Their names in the order of their numbers; none where files decide.
    pub class_names: &'static [&'static str],
    /// Number of training and test images when complete.
    pub counts: Option<[usize; 2]>,
    /// Per channel, of pixels in [0, 1].
    pub mean: &'static [f32],
    /// Per channel.
    pub std: &'static [f32],
    /// Whether every class has the same number of training images.
    pub balanced: bool,
    /// What training does to images unless told otherwise.
    pub augment: Augment,
    /// Folder that its archive unpacks to.
    pub folder: Option<&'static str>,
    /// Folder in which torchvision has a folder `raw` of its files.
    pub torchvision: Option<&'static str>,
    /// Files and folders, any of which tells it from other sets.
    pub signature: &'static [&'static str],
    /// Reads its files, which lie in this folder or in one of [`super::places`].
    pub(super) open: fn(&Set, Option<&Path>, &DataOptions) -> Result<Found>,
    /// What it is where no folder is named.
    pub(super) builtin: Option<fn() -> Result<[Images; 2]>>,
    /// Official address of the files, ending with a slash.
    pub address: &'static str,
    /// Files at that address.
    pub downloads: &'static [Download],
}

impl Set {
    /// Whether files of it, or of a set with the same names of files, lie in `dir` itself.
    pub(super) fn lies_in(&self, dir: &Path) -> bool {
        self.signature.iter().any(|file| dir.join(file).exists())
    }
}

/// A file to download.
#[derive(Debug)]
pub struct Download {
    /// Name at the address and on disk. One that ends with .tar.gz is unpacked.
    pub file: &'static str,
    /// Of the file that its authors publish, in hexadecimal; TensorFlow Datasets, Keras and others pin the same.
    pub sha256: &'static str,
}

const fn download(file: &'static str, sha256: &'static str) -> Download {
    Download { file, sha256 }
}

/// As its authors list them.
#[rustfmt::skip]
const ARTICLES: &[&str] = &[
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
];

/// The digits.
#[rustfmt::skip]
const DIGITS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
];

/// As `batches.meta.txt` lists them.
#[rustfmt::skip]
const CIFAR10: &[&str] = &[
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
];

/// The fine labels, as `fine_label_names.txt` lists them.
#[rustfmt::skip]
const CIFAR100: &[&str] = &[
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
    "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair",
    "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
    "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp",
    "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
    "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel",
    "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// Fashion-MNIST where no folder is named.
#[cfg(feature = "builtin-data")]
const BUILTIN: Option<fn() -> Result<[Images; 2]>> = Some(builtin::fashion_mnist);
#[cfg(not(feature = "builtin-data"))]
const BUILTIN: Option<fn() -> Result<[Images; 2]>> = None;

/// All sets.
///
/// The constants for CIFAR are those of the paper's code and of most others: the means are those
/// of all pixels, but the deviations are averages of each image's own, a fifth below those of all
/// pixels (.2470 .2435 .2616 for CIFAR-10). They are kept so that learning rates carry over.
pub const SETS: &[Set] = &[
    Set {
        name: "fashion-mnist",
        about: "28x28 grey articles, 10 classes; a subset is built in",
        shape: Some([1, 28, 28]),
        classes: 10,
        class_names: ARTICLES,
        counts: Some([60_000, 10_000]),
        mean: &[0.0],
        std: &[1.0],
        balanced: true,
        augment: Augment::None,
        folder: None,
        torchvision: Some("FashionMNIST"),
        signature: mnist::SIGNATURE,
        open: mnist::open,
        builtin: BUILTIN,
        // Amazon serves this bucket without TLS only; the checksums are what is trusted.
        address: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        downloads: &[
            download(
                "train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            download(
                "train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            download(
                "t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            download(
                "t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
    },
    Set {
        name: "mnist",
        about: "28x28 grey digits, 10 classes",
        shape: Some([1, 28, 28]),
        classes: 10,
        class_names: DIGITS,
        counts: Some([60_000, 10_000]),
        mean: &[0.1307],
        std: &[0.3081],
        balanced: false,
        augment: Augment::None,
        folder: None,
        torchvision: Some("MNIST"),
        signature: mnist::SIGNATURE,
        open: mnist::open,
        builtin: None,
        // The authors' own server no longer gives the files out; this is PyTorch's copy.
        address: "https://ossci-datasets.s3.amazonaws.com/mnist/",
        downloads: &[
            download(
                "train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            download(
                "train-labels-idx1-ubyte.gz",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            download(
                "t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            download(
                "t10k-labels-idx1-ubyte.gz",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ],
    },
    Set {
        name: "cifar10",
        about: "32x32 colour photographs, 10 classes (the binary version)",
        shape: Some([3, 32, 32]),
        classes: 10,
        class_names: CIFAR10,
        counts: Some([50_000, 10_000]),
        mean: &[0.4914, 0.4822, 0.4465],
        std: &[0.2023, 0.1994, 0.2010],
        balanced: true,
        augment: Augment::CropFlip,
        folder: Some("cifar-10-batches-bin"),
        torchvision: None,
        signature: &["data_batch_1.bin", "test_batch.bin"],
        open: |set, dir, _| {
            let files = Files {
                train: &[
                    "data_batch_1.bin",
                    "data_batch_2.bin",
                    "data_batch_3.bin",
                    "data_batch_4.bin",
                    "data_batch_5.bin",
                ],
                test: "test_batch.bin",
                label_bytes: 1,
            };
            cifar::open(set, dir, &files)
        },
        builtin: None,
        address: "https://www.cs.toronto.edu/~kriz/",
        downloads: &[download(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )],
    },
    Set {
        name: "cifar100",
        about: "32x32 colour photographs, 100 classes (the binary version, fine labels)",
        shape: Some([3, 32, 32]),
        classes: 100,
        class_names: CIFAR100,
        counts: Some([50_000, 10_000]),
        mean: &[0.5071, 0.4865, 0.4409],
        std: &[0.2009, 0.1984, 0.2023],
        balanced: true,
        augment: Augment::CropFlip,
        folder: Some("cifar-100-binary"),
        torchvision: None,
        signature: &["train.bin", "test.bin"],
        open: |set, dir, _| {
            let files = Files {
                train: &["train.bin"],
                test: "test.bin",
                label_bytes: 2,
            };
            cifar::open(set, dir, &files)
        },
        builtin: None,
        address: "https://www.cs.toronto.edu/~kriz/",
        downloads: &[download(
            "cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )],
    },
    Set {
        name: "folder",
        about: "pictures in train/CLASS/* and val/CLASS/* of a folder that you name, as ImageNet's",
        shape: None,
        classes: 1000,
        class_names: &[],
        counts: None,
        mean: &[0.485, 0.456, 0.406],
        std: &[0.229, 0.224, 0.225],
        balanced: false,
        augment: Augment::ResizedCropFlip,
        folder: None,
        torchvision: None,
        signature: &["train", "val"],
        open: |_, dir, options| folder::open(dir, options),
        builtin: None,
        address: "",
        downloads: &[],
    },
];

/// The name of pictures in folders, the set whose files are the user's.
pub(crate) const FOLDER: &str = "folder";

/// The set of this name.
///
/// # Errors
/// [`Error::Config`] with the names there are.
pub fn find(name: &str) -> Result<&'static Set> {
    SETS.iter().find(|set| set.name == name).ok_or_else(|| {
        let names: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        Error::Config(format!(
            "no data set is called {name:?}; there are {}",
            names.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_a_set_has_a_name() {
        for set in SETS.iter().filter(|set| set.shape.is_some()) {
            let names: std::collections::BTreeSet<_> = set.class_names.iter().collect();
            assert_eq!(
                (set.class_names.len(), names.len()),
                (set.classes, set.classes)
            );
        }
    }

    /// Where their authors, or PyTorch's mirror, have them.
    #[test]
    fn sets_are_fetched_from_their_addresses() {
        let files = |name: &str| -> Vec<String> {
            let set = find(name).unwrap();
            let downloads = set.downloads.iter();
            downloads
                .map(|d| format!("{}{}", set.address, d.file))
                .collect()
        };
        let idx = ["train-images", "train-labels", "t10k-images", "t10k-labels"];
        for (name, base) in [
            ("mnist", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
            (
                "fashion-mnist",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
        ] {
            let wanted = idx.map(|stem| {
                let dimensions = if stem.ends_with("images") { 3 } else { 1 };
                format!("{base}{stem}-idx{dimensions}-ubyte.gz")
            });
            assert_eq!(files(name), wanted);
        }
        let cifar = "https://www.cs.toronto.edu/~kriz/";
        assert_eq!(files("cifar10"), [format!("{cifar}cifar-10-binary.tar.gz")]);
        assert_eq!(
            files("cifar100"),
            [format!("{cifar}cifar-100-binary.tar.gz")]
        );
    }

    /// As the paper's code has them for CIFAR, and torchvision's examples for the others.
    #[test]
    fn pixels_are_normalised_as_others_do_it() {
        let cifar10 = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
        let cifar100 = ([0.5071, 0.4865, 0.4409], [0.2009, 0.1984, 0.2023]);
        let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        for (name, (mean, std)) in [
            ("cifar10", cifar10),
            ("cifar100", cifar100),
            ("folder", imagenet),
        ] {
            let set = find(name).unwrap();
            assert_eq!((set.mean, set.std), (&mean[..], &std[..]), "{name}");
        }
        for (name, mean, std) in [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.0, 1.0)] {
            let set = find(name).unwrap();
            assert_eq!((set.mean, set.std), (&[mean][..], &[std][..]), "{name}");
        }
    }
}
