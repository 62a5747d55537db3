//! Looks a data set over, every file of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{DataOptions, DataSet, Images, SETS, Set, Source, open, places};
use crate::decode::{self, Room};
use crate::{Error, Result};

/// What a data set has and what is wrong with it.
#[derive(Debug)]
pub struct Findings {
    /// Name of the set, as for `--data`.
    pub name: &'static str,
    /// Training and test images.
    pub counts: [usize; 2],
    /// Number of classes.
    pub classes: usize,
    /// Images of the smallest and of the largest class in training.
    pub per_class: [usize; 2],
    /// What differs from the official set: less of it can still be trained on.
    pub remarks: Vec<String>,
    /// Files that cannot be used, with what is wrong with them.
    pub problems: Vec<String>,
}

/// Finds out which set lies in `dir`, opens it and decodes every file of a folder, on all cores.
/// `tell` gets how many files were decoded, of how many.
///
/// Needs the feature `pictures`.
///
/// # Errors
/// [`Error::Data`] if there is none in it, and those of opening it.
pub fn check(dir: &Path, tell: impl Fn(usize, usize) + Sync) -> Result<Findings> {
    if !dir.is_dir() {
        return Err(Error::data(dir, "is no folder"));
    }
    let Some(set) = detect(dir) else {
        let files: Vec<&str> = SETS.iter().flat_map(|set| set.signature).copied().collect();
        let message = format!("holds no data set: there is none of {}", files.join(", "));
        return Err(Error::data(dir, message));
    };
    let data = open(set.name, Some(dir), &DataOptions::default())?;
    let counts = [data.train.len(), data.test.len()];
    let per_class = per_class(&data.train);
    let name = name_of(set, counts, per_class[0] == per_class[1]);
    let mut remarks = data.notices.clone();
    if remarks.is_empty() {
        remarks.extend(lack(set.counts, counts));
    }
    if per_class[0] == 0 {
        remarks.push("a class has no training image".into());
    }
    Ok(Findings {
        name,
        counts,
        classes: data.train.classes,
        per_class,
        remarks,
        problems: bad_files(&data, &tell),
    })
}

fn detect(dir: &Path) -> Option<&'static Set> {
    let lies_here = |set: &&Set| {
        let places = places(set, Some(dir));
        places.iter().any(|place| set.lies_in(place))
    };
    let set = SETS.iter().find(lies_here)?;
    let is_named = |twin: &&Set| {
        let by_torchvision = |name| dir.ends_with(name) || dir.join(name).is_dir();
        dir.ends_with(twin.name) || twin.torchvision.is_some_and(by_torchvision)
    };
    twins(set).filter(is_named).last().or(Some(set))
}

/// The sets whose files have the same names: both MNISTs. The folder's name tells them apart, or if there are all images, how
/// many each class has.
fn twins(set: &Set) -> impl Iterator<Item = &'static Set> {
    SETS.iter().filter(|twin| twin.signature == set.signature)
}

/// The name of `set`, or where all its images are there, of the twin whose classes are as balanced.
fn name_of(set: &Set, counts: [usize; 2], is_balanced: bool) -> &'static str {
    let twin = twins(set).find(|twin| twin.balanced == is_balanced);
    match (set.counts == Some(counts), twin) {
        (true, Some(twin)) => twin.name,
        _ => set.name,
    }
}

/// What to remark of `counts` training and test images where the official set has `wanted`.
fn lack(wanted: Option<[usize; 2]>, counts: [usize; 2]) -> Option<String> {
    let [train, test] = wanted.filter(|&wanted| counts != wanted)?;
    Some(format!(
        "the official set has {train} training and {test} test images"
    ))
}

fn per_class(images: &Images) -> [usize; 2] {
    let mut counts = vec![0; images.classes];
    for &label in &images.labels {
        counts[usize::from(label)] += 1;
    }
    let least = counts.iter().min().copied().unwrap_or(0);
    [least, counts.iter().max().copied().unwrap_or(0)]
}

fn bad_files(data: &DataSet, tell: &(impl Fn(usize, usize) + Sync)) -> Vec<String> {
    let mut paths = Vec::new();
    for images in [&data.train, &data.test] {
        if let Source::Files(files) = &images.source {
            paths.extend(files);
        }
    }
    // The same files, where training images serve for the test.
    paths.sort_unstable();
    paths.dedup();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let problems = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = decode::read(path, Room::of(0)) {
                let mut problems = problems.lock().unwrap_or_else(|e| e.into_inner());
                problems.insert(path, error.to_string());
            }
            tell(done.fetch_add(1, Ordering::Relaxed) + 1, paths.len());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let problems = problems.into_inner().unwrap_or_else(|e| e.into_inner());
    problems.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::find_set;

    #[test]
    fn whole_sets_of_one_format_are_told_apart_by_their_classes() {
        let whole = [60_000, 10_000];
        for (given, counts, is_balanced, wanted) in [
            ("mnist", whole, true, "fashion-mnist"),
            ("fashion-mnist", whole, false, "mnist"),
            ("mnist", whole, false, "mnist"),
            ("mnist", [59_999, 10_000], true, "mnist"),
            ("fashion-mnist", [60_000, 9_999], false, "fashion-mnist"),
            ("cifar10", [50_000, 10_000], false, "cifar10"),
        ] {
            let set = find_set(given).unwrap();
            assert_eq!(name_of(set, counts, is_balanced), wanted);
        }
    }

    #[test]
    fn what_a_set_lacks_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        for (split, labels) in [("train", &[0, 0, 1][..]), ("t10k", &[9])] {
            let count = labels.len() as u8;
            let images = [
                &[0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28][..],
                &vec![7; 784 * labels.len()],
            ];
            let labels = [&[0, 0, 8, 1, 0, 0, 0, count][..], labels];
            for (what, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
                std::fs::write(
                    dir.path().join(format!("{split}-{what}-ubyte")),
                    bytes.concat(),
                )
                .unwrap();
            }
        }
        let found = check(dir.path(), |_, _| ()).unwrap();
        assert_eq!(
            (found.counts, found.classes, found.per_class),
            ([3, 1], 10, [0, 2])
        );
        let remarks = [
            "the official set has 60000 training and 10000 test images",
            "a class has no training image",
        ];
        assert_eq!(found.remarks, remarks);
        let whole = Some([60_000, 10_000]);
        for (counts, lacks) in [
            ([60_000, 10_000], false),
            ([60_000, 9_999], true),
            ([59_999, 10_000], true),
        ] {
            assert_eq!(lack(whole, counts).is_some(), lacks, "{counts:?}");
        }
        assert_eq!(lack(None, [3, 1]), None);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn every_picture_is_counted_once_it_is_decoded() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("train/a/1.ppm", &b"P6 1 1 255\n123"[..]),
            ("train/a/2.ppm", b"no picture"),
            ("val/a/3.ppm", b"P6 1 1 255\n123"),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let told = Mutex::new(Vec::new());
        let found = check(dir.path(), |done, all| {
            told.lock().unwrap().push((done, all));
        });
        let found = found.unwrap();
        let mut told = told.into_inner().unwrap();
        told.sort_unstable();
        assert_eq!(told, [(1, 3), (2, 3), (3, 3)]);
        assert_eq!(
            (found.name, found.counts, found.classes),
            ("folder", [2, 1], 1)
        );
        assert_eq!(found.problems.len(), 1);
        assert!(found.problems[0].contains("2.ppm"), "{:?}", found.problems);
    }
}
