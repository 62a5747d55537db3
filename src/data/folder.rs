//! A folder of pictures in ImageNet's layout: train/CLASS/*, val/CLASS/* (or test/CLASS/*).
//!
//! Classes are the folders of train/ in the order of their names. Pictures are the files whose
//! names end as [`ENDINGS`] says; other files and those whose names begin with a dot are left
//! alone. Only paths are kept: what is in the files shows when they are decoded.

use std::path::{Path, PathBuf};

use super::{Images, Source};
use crate::{Error, Result};

/// Endings of picture files, in any case.
const ENDINGS: &[&str] = &[
    "jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
];

/// Training and test images, and a notice if the former have to serve as the latter.
///
/// # Errors
/// [`Error::Data`] naming a class without pictures or one that train/ has not, [`Error::Io`].
pub(super) fn open(root: &Path, image_size: usize) -> Result<(Images, Images, Vec<String>)> {
    let classes = classes(&root.join("train"))?;
    let train = read(&root.join("train"), &classes, image_size)?;
    let held_out = ["val", "test"].map(|name| root.join(name));
    match held_out.iter().find(|dir| dir.is_dir()) {
        Some(dir) => Ok((train, read(dir, &classes, image_size)?, Vec::new())),
        None => {
            let notice = format!(
                "{} has neither val/ nor test/: the test is on the training images, without \
                 augmentation, and says nothing of new images",
                root.display()
            );
            Ok((train.clone(), train, vec![notice]))
        }
    }
}

/// Names of the classes, in order.
///
/// # Errors
/// [`Error::Data`] if there is no such folder or none in it, [`Error::Io`].
pub(super) fn classes(train: &Path) -> Result<Vec<String>> {
    if !train.is_dir() {
        let message = "is no folder; pictures are expected in train/CLASS/* and val/CLASS/*";
        return Err(Error::data(train, message));
    }
    let names = names(train, |path| path.is_dir())?;
    if names.is_empty() {
        return Err(Error::data(
            train,
            "has no folders: one for each class is expected",
        ));
    }
    if names.len() > usize::from(u16::MAX) {
        let message = format!("has {} folders; classes can be 65535", names.len());
        return Err(Error::data(train, message));
    }
    Ok(names)
}

fn read(split: &Path, classes: &[String], image_size: usize) -> Result<Images> {
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for class in names(split, |path| path.is_dir())? {
        let dir = split.join(&class);
        let Ok(label) = classes.binary_search(&class) else {
            let message = "is of a class that train/ has no folder of";
            return Err(Error::data(dir, message));
        };
        let files = names(&dir, is_picture)?;
        if files.is_empty() {
            let message = format!("has no picture in it ({})", ENDINGS.join(", "));
            return Err(Error::data(dir, message));
        }
        // At most u16::MAX classes, as checked above.
        labels.resize(labels.len() + files.len(), label as u16);
        paths.extend(files.iter().map(|file| dir.join(file)));
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

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    ending.is_some_and(|e| ENDINGS.contains(&e.to_ascii_lowercase().as_str()))
}

/// Sorted names of what `wanted` takes in a folder, hidden ones left out.
fn names(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let unreadable = |e| Error::io(dir, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path: PathBuf = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return Err(Error::data(
                &path,
                "has a name that is no Unicode; rename it",
            ));
        };
        if !name.starts_with('.') && wanted(&path) {
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}
