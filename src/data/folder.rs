//! A folder of pictures in ImageNet's layout: train/CLASS/**, val/CLASS/** (or test/CLASS/**).
//!
//! Classes are the folders of train/ in the order of their names. Pictures are the files below them, in folders of any depth
//! as torchvision's `ImageFolder` takes them, whose names end as [`ENDINGS`] says; what else is there is counted and said.
//! Names that begin with a dot are left alone. Only paths are kept: what is in the files shows when they are decoded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{DataOptions, Images, Source};
use crate::{Error, Result};

/// Endings of picture files, in any case.
const ENDINGS: &[&str] = &[
    "jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
];

/// Folders in folders that are entered; a link to a folder above would have no end.
const DEEPEST: usize = 32;

/// Training and test images, and notices: if the former have to serve as the latter, and of files that are no pictures.
///
/// # Errors
/// [`Error::Data`] naming a class without pictures or one that train/ has not, [`Error::Io`].
pub(super) fn open(root: &Path, options: &DataOptions) -> Result<(Images, Images, Vec<String>)> {
    let classes = classes(root)?;
    let mut others = Others::default();
    let held_out = ["val", "test"].map(|name| root.join(name));
    let held_out = held_out.iter().find(|dir| dir.is_dir());
    let mut read = |dir: &Path| read(dir, &classes, options.image_size, &mut others);
    let train = root.join("train");
    let (train, test, notice) = match held_out {
        Some(dir) if options.test_only => {
            let test = read(dir)?;
            (test.clone(), test, None)
        }
        Some(dir) => (read(&train)?, read(dir)?, None),
        None => {
            let notice = format!(
                "{} has neither val/ nor test/: the test is on the training images, without \
                 augmentation, and says nothing of new images",
                root.display()
            );
            let train = read(&train)?;
            (train.clone(), train, Some(notice))
        }
    };
    Ok((
        train,
        test,
        notice.into_iter().chain(others.said(root)).collect(),
    ))
}

/// Names of the classes, in order: the folders of train/, or without it, those of val/ or test/.
///
/// # Errors
/// [`Error::Data`] if there is no such folder or none in it, [`Error::Io`].
pub(super) fn classes(root: &Path) -> Result<Vec<OsString>> {
    let splits = ["train", "val", "test"].map(|name| root.join(name));
    let Some(split) = splits.iter().find(|dir| dir.is_dir()) else {
        let message = "is no folder; pictures are expected in train/CLASS/* and val/CLASS/*";
        return Err(Error::data(&splits[0], message));
    };
    let names: Vec<OsString> = entries(split)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name().map(OsString::from))
        .collect();
    if names.is_empty() {
        return Err(Error::data(
            split,
            "has no folders: one for each class is expected",
        ));
    }
    if names.len() > usize::from(u16::MAX) {
        let message = format!("has {} folders; classes can be 65535", names.len());
        return Err(Error::data(split, message));
    }
    Ok(names)
}

/// Files that were passed over: how many of each ending, and one of them.
#[derive(Default)]
struct Others(BTreeMap<String, (usize, PathBuf)>);

impl Others {
    fn add(&mut self, path: PathBuf) {
        let ending = path
            .extension()
            .map(|e| format!(".{}", e.to_string_lossy()));
        let ending = ending.unwrap_or_else(|| "no ending".into());
        self.0.entry(ending).or_insert((0, path)).0 += 1;
    }

    fn said(&self, root: &Path) -> Option<String> {
        let (_, example) = self.0.values().next()?;
        let count: usize = self.0.values().map(|(count, _)| count).sum();
        let kinds = self
            .0
            .iter()
            .map(|(ending, (count, _))| format!("{count} with {ending}"));
        Some(format!(
            "{}: {count} files are passed over, since their names do not end as those of pictures do ({}): {}, such as {}",
            root.display(),
            ENDINGS.join(", "),
            kinds.collect::<Vec<_>>().join(", "),
            example.display()
        ))
    }
}

fn read(
    split: &Path,
    classes: &[OsString],
    image_size: usize,
    others: &mut Others,
) -> Result<Images> {
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for dir in entries(split)? {
        if !dir.is_dir() {
            others.add(dir);
            continue;
        }
        let name = dir.file_name().unwrap_or_default();
        let Ok(label) = classes.binary_search_by(|class| class.as_os_str().cmp(name)) else {
            let message = "is of a class that train/ has no folder of";
            return Err(Error::data(dir, message));
        };
        let before = paths.len();
        pictures(&dir, DEEPEST, &mut paths, others)?;
        if paths.len() == before {
            let message = format!("has no picture in it ({})", ENDINGS.join(", "));
            return Err(Error::data(dir, message));
        }
        // At most u16::MAX classes, as checked above.
        labels.resize(paths.len(), label as u16);
    }
    if paths.is_empty() {
        return Err(Error::data(
            split,
            "has no folders: one for each class is expected",
        ));
    }
    Ok(Images {
        name: split.display().to_string(),
        channels: 3,
        height: image_size,
        width: image_size,
        classes: classes.len(),
        source: Source::Files(paths),
        labels,
    })
}

/// Appends the pictures in `dir` and in the folders below, in the order of their paths.
fn pictures(dir: &Path, depth: usize, paths: &mut Vec<PathBuf>, others: &mut Others) -> Result<()> {
    for path in entries(dir)? {
        if path.is_dir() {
            if depth == 0 {
                let message = format!("lies {DEEPEST} folders deep: a link to a folder above it?");
                return Err(Error::data(path, message));
            }
            pictures(&path, depth - 1, paths, others)?;
        } else if is_picture(&path) {
            paths.push(path);
        } else {
            others.add(path);
        }
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    ending.is_some_and(|e| ENDINGS.contains(&e.to_ascii_lowercase().as_str()))
}

/// What is in a folder, sorted by name, without what is hidden.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e| Error::io(dir, e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
