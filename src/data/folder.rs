//! A folder of pictures in ImageNet's layout: train/CLASS/**, val/CLASS/** (or test/CLASS/**).
//!
//! Classes are the folders of train/ in the order of their names. Pictures are the files below them, in folders of any depth
//! as torchvision's `ImageFolder` takes them, whose names end as [`ENDINGS`] says; what else is there is counted and said.
//! Names that begin with a dot are left alone. Only paths are kept: what is in the files shows when they are decoded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{DataOptions, Found, Images, Source};
use crate::{Error, Result};

/// Endings of picture files, in any case.
const ENDINGS: &[&str] = &[
    "jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
];

/// Folders in folders that are entered; a link to a folder above would have no end.
const DEEPEST: usize = 32;

/// Training and test images.
///
/// # Errors
/// [`Error::Data`] naming a class without pictures, or one that train/ or the network has not, [`Error::Io`].
pub(super) fn open(root: Option<&Path>, options: &DataOptions) -> Result<Found> {
    let Some(root) = root else {
        let message = "`data` folder needs a `data_dir` with train/CLASS/* and val/CLASS/*";
        return Err(Error::Config(message.into()));
    };
    let held_out = ["val", "test"].map(|name| root.join(name));
    let held_out = held_out.iter().find(|dir| dir.is_dir());
    let mut notices = Vec::new();
    let classes = match (&options.class_names, held_out) {
        (None, _) => classes(root)?,
        (Some(known), Some(dir)) if options.test_only => {
            let (classes, notice) = as_known(dir, known)?;
            notices.extend(notice);
            classes
        }
        (Some(known), _) => {
            let classes = classes(root)?;
            if names_of(&classes) != *known {
                return Err(Error::data(root, other_classes(&names_of(&classes), known)));
            }
            classes
        }
    };
    let mut others = Others::default();
    let mut read = |dir: &Path| read(dir, &classes, options.image_size, &mut others);
    let train = root.join("train");
    let (train, test) = match held_out {
        Some(dir) if options.test_only => {
            let test = read(dir)?;
            (test.clone(), test)
        }
        Some(dir) => (read(&train)?, read(dir)?),
        None => {
            notices.push(format!(
                "{} has neither val/ nor test/: the test is on the training images, without \
                 augmentation, and says nothing of new images",
                root.display()
            ));
            let train = read(&train)?;
            (train.clone(), train)
        }
    };
    notices.extend(others.said(root));
    Ok(Found {
        train,
        test,
        class_names: Some(names_of(&classes)),
        notices,
    })
}

/// What is no Unicode in a name is shown by replacement characters.
fn names_of(classes: &[OsString]) -> Vec<String> {
    let names = classes
        .iter()
        .map(|name| name.to_string_lossy().into_owned());
    names.collect()
}

fn other_classes(found: &[String], known: &[String]) -> String {
    let list = |names: &[String]| {
        let first = names.iter().take(5).map(String::as_str);
        let more = if names.len() > 5 { ", ..." } else { "" };
        format!("{}{more}", first.collect::<Vec<_>>().join(", "))
    };
    format!(
        "has {} classes ({}), and the network was trained on {} ({}): their numbers would not be the same",
        found.len(),
        list(found),
        known.len(),
        list(known)
    )
}

/// The classes that a network knows, for the folders of `split`, which are some of them. If all are called otherwise, they
/// are taken in order, and a notice says so.
fn as_known(split: &Path, known: &[String]) -> Result<(Vec<OsString>, Option<String>)> {
    let own = folders(split)?;
    let names = names_of(&own);
    let is_known = |name: &&String| known.contains(name);
    match names.iter().filter(is_known).count() {
        count if count == names.len() => Ok((known.iter().map(OsString::from).collect(), None)),
        0 if names.len() == known.len() => {
            let notice = format!(
                "{}: no class is called as one of the training; they are taken in order: {} is {}, and so on",
                split.display(),
                names[0],
                known[0]
            );
            Ok((own, Some(notice)))
        }
        _ => Err(Error::data(split, other_classes(&names, known))),
    }
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
    folders(split)
}

/// Names of the folders in `split`, sorted.
fn folders(split: &Path) -> Result<Vec<OsString>> {
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
            "{}: {count} files are passed over, since they are no files or their names do not end as those of pictures do ({}): {}, such as {}",
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
        let shown = name.to_string_lossy();
        let is_it = |class: &OsString| class == name || class.to_string_lossy() == shown;
        let Some(label) = classes.iter().position(is_it) else {
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

/// The pictures in `dir` and in the folders below, in the order of their paths; and what to tell of files that are none.
///
/// # Errors
/// [`Error::Data`] if there are none, [`Error::Io`].
pub fn pictures_below(dir: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let (mut paths, mut others) = (Vec::new(), Others::default());
    pictures(dir, DEEPEST, &mut paths, &mut others)?;
    if paths.is_empty() {
        let message = format!("has no picture in it ({})", ENDINGS.join(", "));
        return Err(Error::data(dir, message));
    }
    Ok((paths, others.said(dir)))
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
        } else if is_picture(&path) && !is_special(&path) {
            paths.push(path);
        } else {
            others.add(path);
        }
    }
    Ok(())
}

/// Whether it is there and neither a file nor a folder: reading a pipe could wait for ever.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_the_folder_and_of_the_training_are_told_apart() {
        let names = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(
            other_classes(&names("abcdef"), &names("vwxyz")),
            "has 6 classes (a, b, c, d, e, ...), and the network was trained on 5 (v, w, x, y, z): their numbers would not be \
             the same"
        );
    }
}
