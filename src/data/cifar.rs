//! CIFAR-10 and CIFAR-100 in their binary version: records of one label byte (CIFAR-100: the
//! coarse and the fine one) and 3 x 32 x 32 bytes, planes of red, green and blue.

use std::path::{Path, PathBuf};

use super::{Found, Images, Set, Source, not_found, places};
use crate::{Error, Result};

/// Bytes of an image.
const PIXELS: usize = 3 * 32 * 32;

/// Coarse classes of CIFAR-100.
const COARSE: u8 = 20;

/// The files of one of them.
pub(super) struct Files {
    pub(super) train: &'static [&'static str],
    pub(super) test: &'static str,
    /// Of a record, before its pixels.
    pub(super) label_bytes: usize,
}

/// Training and test images, and what is missing. Part of the training files is enough, in order
/// from the first one, so that trials need not have all.
///
/// # Errors
/// [`Error::Data`] naming file and byte, [`Error::Io`].
pub(super) fn open(set: &Set, data_dir: Option<&Path>, files: &Files) -> Result<Found> {
    let places = places(set, data_dir);
    let Files {
        train,
        test,
        label_bytes,
    } = *files;
    let has = |dir: &Path, file: &str| dir.join(file).exists();
    let any = |dir: &&PathBuf| has(dir, test) || train.iter().any(|file| has(dir, file));
    let Some(dir) = places.iter().find(any) else {
        return Err(not_found(set, train[0], &places));
    };
    let there = train.iter().take_while(|file| has(dir, file)).count();
    if there == 0 || train[there..].iter().any(|file| has(dir, file)) {
        return Err(Error::data(dir.join(train[there]), "is missing"));
    }
    let counts = set.counts.unwrap_or_default();
    let mut notices = Vec::new();
    let wanted = [counts[0] / train.len(), counts[1]];
    let images = [
        read(set, label_bytes, dir, train, there, wanted[0], &mut notices)?,
        read(set, label_bytes, dir, &[test], 1, wanted[1], &mut notices)?,
    ];
    Ok(Found {
        notices,
        ..Found::new(images)
    })
}

/// The first `there` of `files`, with a notice of those that have not the `wanted` number of images.
fn read(
    set: &Set,
    label_bytes: usize,
    dir: &Path,
    files: &[&str],
    there: usize,
    wanted: usize,
    notices: &mut Vec<String>,
) -> Result<Images> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut short = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let before = labels.len();
        if i < there {
            let path = dir.join(file);
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            parse(set, label_bytes, &path, &bytes, &mut pixels, &mut labels)?;
        }
        if labels.len() - before != wanted {
            short.push(format!("{file} {}", labels.len() - before));
        }
    }
    if !short.is_empty() {
        notices.push(format!(
            "{}: {} images, not the {} of {}: each file should have {wanted}, but {} has",
            dir.display(),
            labels.len(),
            wanted * files.len(),
            set.name,
            short.join(", ")
        ));
    }
    Ok(Images {
        name: dir.display().to_string(),
        channels: 3,
        height: 32,
        width: 32,
        classes: set.classes,
        source: Source::Bytes(pixels),
        labels,
    })
}

/// Appends the records of a file.
fn parse(
    set: &Set,
    label_bytes: usize,
    path: &Path,
    bytes: &[u8],
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u16>,
) -> Result<()> {
    let record_len = label_bytes + PIXELS;
    let (count, rest) = (bytes.len() / record_len, bytes.len() % record_len);
    if rest != 0 || count == 0 {
        let message = format!(
            "ends at byte {}, {rest} bytes into record {count}; records of {} have {record_len} \
             bytes: cut short?",
            bytes.len(),
            set.name
        );
        return Err(Error::data(path, message));
    }
    pixels.reserve(count * PIXELS);
    for (i, record) in bytes.chunks_exact(record_len).enumerate() {
        let (label, image) = record.split_at(label_bytes);
        for (at, &value) in label.iter().enumerate() {
            let is_coarse = label_bytes == 2 && at == 0;
            let classes = if is_coarse {
                COARSE.into()
            } else {
                set.classes
            };
            if usize::from(value) >= classes {
                let message = format!(
                    "{} {value} of record {i}, at byte {}, is not below {classes}",
                    if is_coarse { "coarse label" } else { "label" },
                    i * record_len + at
                );
                return Err(Error::data(path, message));
            }
        }
        labels.push(label[label_bytes - 1].into());
        pixels.extend(image);
    }
    Ok(())
}
