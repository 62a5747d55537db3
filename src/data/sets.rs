//! The table of data sets: all that differs between them but their file formats.

use super::Augment;
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
    /// Number of training and test images when complete.
    pub counts: Option<[usize; 2]>,
    /// Per channel, of pixels in [0, 1].
    pub mean: &'static [f32],
    /// Per channel.
    pub std: &'static [f32],
    /// What training does to images unless told otherwise.
    pub augment: Augment,
    /// Folder that its archive unpacks to.
    pub folder: Option<&'static str>,
    /// Official address of the files, ending with a slash.
    pub address: &'static str,
    /// Files at that address.
    pub downloads: &'static [Download],
}

/// A file to download.
#[derive(Debug)]
pub struct Download {
    /// Name at the address and on disk. One that ends with .tar.gz is unpacked.
    pub file: &'static str,
    /// As the set's authors or torchvision publish it, in hexadecimal.
    pub md5: &'static str,
}

const fn download(file: &'static str, md5: &'static str) -> Download {
    Download { file, md5 }
}

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
        counts: Some([60_000, 10_000]),
        mean: &[0.0],
        std: &[1.0],
        augment: Augment::None,
        folder: None,
        // Amazon serves this bucket without TLS only; the checksums are what is trusted.
        address: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        downloads: &[
            download(
                "train-images-idx3-ubyte.gz",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            ),
            download(
                "train-labels-idx1-ubyte.gz",
                "25c81989df183df01b3e8a0aad5dffbe",
            ),
            download(
                "t10k-images-idx3-ubyte.gz",
                "bef4ecab320f06d8554ea6380940ec79",
            ),
            download(
                "t10k-labels-idx1-ubyte.gz",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ],
    },
    Set {
        name: "mnist",
        about: "28x28 grey digits, 10 classes",
        shape: Some([1, 28, 28]),
        classes: 10,
        counts: Some([60_000, 10_000]),
        mean: &[0.1307],
        std: &[0.3081],
        augment: Augment::None,
        folder: None,
        // The authors' own server no longer gives the files out; this is PyTorch's copy.
        address: "https://ossci-datasets.s3.amazonaws.com/mnist/",
        downloads: &[
            download(
                "train-images-idx3-ubyte.gz",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            ),
            download(
                "train-labels-idx1-ubyte.gz",
                "d53e105ee54ea40749a09fcbcd1e9432",
            ),
            download(
                "t10k-images-idx3-ubyte.gz",
                "9fb629c4189551a2d022fa330f9573f3",
            ),
            download(
                "t10k-labels-idx1-ubyte.gz",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ],
    },
    Set {
        name: "cifar10",
        about: "32x32 colour photographs, 10 classes (the binary version)",
        shape: Some([3, 32, 32]),
        classes: 10,
        counts: Some([50_000, 10_000]),
        mean: &[0.4914, 0.4822, 0.4465],
        std: &[0.2023, 0.1994, 0.2010],
        augment: Augment::CropFlip,
        folder: Some("cifar-10-batches-bin"),
        address: "https://www.cs.toronto.edu/~kriz/",
        downloads: &[download(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        )],
    },
    Set {
        name: "cifar100",
        about: "32x32 colour photographs, 100 classes (the binary version, fine labels)",
        shape: Some([3, 32, 32]),
        classes: 100,
        counts: Some([50_000, 10_000]),
        mean: &[0.5071, 0.4865, 0.4409],
        std: &[0.2009, 0.1984, 0.2023],
        augment: Augment::CropFlip,
        folder: Some("cifar-100-binary"),
        address: "https://www.cs.toronto.edu/~kriz/",
        downloads: &[download(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        )],
    },
    Set {
        name: "folder",
        about: "pictures in train/CLASS/* and val/CLASS/*, as ImageNet's; needs --data-dir",
        shape: None,
        classes: 1000,
        counts: None,
        mean: &[0.485, 0.456, 0.406],
        std: &[0.229, 0.224, 0.225],
        augment: Augment::ResizedCropFlip,
        folder: None,
        address: "",
        downloads: &[],
    },
];

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
