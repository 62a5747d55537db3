//! Folders for results, and files that are whole or not there.
//!
//! Unstable: may change in any release.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What a run writes into its folder.
const RESULTS: [&str; 7] = [
    "config.toml",
    "model.safetensors",
    "metrics.jsonl",
    "curves.png",
    "checkpoints",
    "best.safetensors",
    "run.json",
];

/// How the names of TensorBoard's event files begin, of which a run may write several.
pub(crate) const EVENT_FILES: &str = "events.out.tfevents.";

/// TensorBoard's event files in `dir`, in the order of their names; none if it cannot be read.
pub(crate) fn event_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_one = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(EVENT_FILES)
    };
    let mut files: Vec<PathBuf> = entries.filter(is_one).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Makes a folder and those above it, unless they are there.
///
/// # Errors
/// [`Error::Config`] if there is a file of this name, [`Error::Io`] with the path.
pub fn make_folder(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| match dir.is_file() {
        true => Error::Config(format!("{} is a file; name a folder", dir.display())),
        false => Error::io(dir, e),
    })
}

/// Makes `dir` and proves that it can be written to. Unless `force`, a folder is refused that holds another run, or any
/// file that a run would write over or remove.
///
/// # Errors
/// [`Error::Io`] with the path, [`Error::Config`] for a folder with such files.
pub fn prepare_out(dir: &Path, force: bool) -> Result<()> {
    make_folder(dir)?;
    let results = RESULTS.map(|name| dir.join(name));
    let mut results = results.into_iter().chain(event_files(dir));
    let there = results.find(|path| path.exists());
    let there = there.as_deref().and_then(Path::file_name);
    if let (false, Some(name)) = (force, there) {
        let dir = dir.display();
        return Err(Error::Config(match &*name.to_string_lossy() {
            "config.toml" => {
                format!(
                    "{dir} holds an earlier run; give another `out`, or `force` to overwrite it"
                )
            }
            name => format!(
                "{dir} holds {name} but no config.toml, so no run of decorr made it; give another `out`, or `force` to \
                 overwrite it"
            ),
        }));
    }
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let written = File::create_new(&probe).and_then(|mut file| file.write_all(b"probe"));
    written.map_err(|e| Error::io(dir, e))?;
    fs::remove_file(&probe).map_err(|e| Error::io(&probe, e))
}

/// A folder that nobody else who asks may write to until this is dropped. The system gives it up, too, when the
/// process ends in whatever way.
#[derive(Debug)]
pub(crate) struct OutLock {
    path: PathBuf,
    _file: File,
}

impl Drop for OutLock {
    fn drop(&mut self) {
        // Left behind, it is only a hidden file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes `dir` and takes it for this process, by a file `.lock` in it. Where the file system knows no locks, nothing is
/// taken.
///
/// # Errors
/// [`Error::Config`] if another has it, [`Error::Io`] with the path.
pub(crate) fn lock_out(dir: &Path) -> Result<OutLock> {
    make_folder(dir)?;
    let path = dir.join(".lock");
    // Some file systems give a file another number each time it is asked for: so not for ever.
    for _ in 0..100 {
        // Not emptied: it could be a link to somebody's file.
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|e| Error::io(&path, e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::Config(format!(
                "another run is writing to {}; wait for its end, or give another `out`",
                dir.display()
            )));
        }
        // A run that ended in between has removed the file that was opened here: its lock would hold nobody off.
        if is_at(&file, &path) {
            return Ok(OutLock { path, _file: file });
        }
    }
    Err(Error::Config(format!(
        "{} cannot be locked for this run, its file .lock is another each time; give another `out`",
        dir.display()
    )))
}

/// Whether `file` is still what is at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// An open file cannot be removed here.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Removes a folder that nothing was written to, if it is one.
pub(crate) fn remove_if_empty(dir: &Path) {
    let _ = fs::remove_dir(dir);
}

/// Removes a file; none there is fine.
///
/// # Errors
/// [`Error::Io`] with the path.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Refuses a file to write whose name has another ending than one of `endings`: it is somebody's, such as a checkpoint, or its
/// name would not say what is in it.
///
/// # Errors
/// [`Error::Config`] naming it and the endings.
pub fn expect_ending(path: &Path, endings: &[&str]) -> Result<()> {
    let Some(ending) = path.extension().map(|e| e.to_string_lossy().to_lowercase()) else {
        return Ok(());
    };
    match endings.contains(&ending.as_str()) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "{} would not be what its name says: let it end with .{}",
            path.display(),
            endings.join(" or .")
        ))),
    }
}

/// Writes a file so that a power cut leaves the old one or the new one, never a half: under
/// another name, synced, renamed. A symbolic link stays, and the file that it names is written. A device or a pipe, such as
/// /dev/stdout, stays too, and is given the bytes as they come.
///
/// # Errors
/// [`Error::Io`] with the path; then the old file is as it was, or, if only the folder could not be
/// synced, the new one is there whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = target_of(path);
    let target = target.as_deref().unwrap_or(path);
    let is_special = fs::metadata(target).is_ok_and(|there| !there.is_file() && !there.is_dir());
    if !is_special {
        return write_atomically_with(target, |file| file.write_all(bytes));
    }
    let written = File::options().write(true).open(target);
    let written = written.and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| Error::io(path, e))
}

/// What symbolic links lead to from `path`, whether it is there or not; none if it is no link, or they lead in a circle.
fn target_of(path: &Path) -> Option<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut target = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            // Relative ones begin in the folder of the link.
            Ok(next) => target = target.with_file_name("").join(next),
            Err(_) => return (target != path).then_some(target),
        }
    }
    None
}

/// As [`write_atomically`], with what `write` puts into the file. A symbolic link is written over.
///
/// # Errors
/// As [`write_atomically`], and what `write` said.
pub(crate) fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let whole = || {
        // What a killed run left, or somebody's link, which is not to be followed.
        if fs::symlink_metadata(&temporary).is_ok() {
            fs::remove_file(&temporary)?;
        }
        let mut file = File::create_new(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    whole().map_err(|e| {
        // Best effort: the error to report is the first one.
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_runs_are_not_overwritten_by_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        prepare_out(&out, false).unwrap();
        write_atomically(&out.join("config.toml"), b"x").unwrap();
        let text = prepare_out(&out, false).unwrap_err().to_string();
        assert!(text.contains("`force`"), "{text}");
        prepare_out(&out, true).unwrap();
        let lock = lock_out(&out).unwrap();
        let text = lock_out(&out).unwrap_err().to_string();
        assert!(text.contains("another run is writing to"), "{text}");
        drop(lock);
        drop(lock_out(&out).unwrap());
        assert!(!out.join(".lock").exists());
        assert_eq!(fs::read(out.join("config.toml")).unwrap(), b"x");
        for foreign in [
            "model.safetensors",
            "metrics.jsonl",
            "curves.png",
            "checkpoints",
            "events.out.tfevents.1764000000.host.7.0",
        ] {
            let out = dir.path().join(foreign);
            fs::create_dir(&out).unwrap();
            fs::write(out.join(foreign), b"y").unwrap();
            let text = prepare_out(&out, false).unwrap_err().to_string();
            assert!(text.contains(foreign) && text.contains("`force`"), "{text}");
            prepare_out(&out, true).unwrap();
        }
    }

    #[test]
    fn names_say_what_is_in_a_file() {
        for name in ["a.png", "b.PNG", "/dev/stdout", "a.b/c"] {
            expect_ending(Path::new(name), &["png"]).unwrap();
        }
        for name in ["run/model.safetensors", "a.jpg"] {
            let text = expect_ending(Path::new(name), &["png", "apng"])
                .unwrap_err()
                .to_string();
            assert!(
                text.contains(name) && text.contains(".png or .apng"),
                "{text}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("there")).unwrap();
        symlink("there/file", at("link")).unwrap();
        symlink(at("link"), at("link to link")).unwrap();
        for (name, text) in [("link", b"1"), ("link to link", b"2")] {
            write_atomically(&at(name), text).unwrap();
            assert!(at(name).is_symlink());
            assert_eq!(fs::read(at("there/file")).unwrap(), text);
        }
        // Nor are those followed, or removed, that only look like a run's own.
        fs::write(at("precious"), b"precious").unwrap();
        fs::create_dir(at("out")).unwrap();
        for name in [".lock", ".config.toml.tmp"] {
            symlink(at("precious"), at("out").join(name)).unwrap();
        }
        fs::write(at("out/.probe"), b"precious").unwrap();
        let lock = lock_out(&at("out")).unwrap();
        prepare_out(&at("out"), false).unwrap();
        write_atomically(&at("out/config.toml"), b"lr = 1").unwrap();
        drop(lock);
        for name in ["precious", "out/.probe"] {
            assert_eq!(fs::read(at(name)).unwrap(), b"precious");
        }
        assert!(!at("out/config.toml").is_symlink());
        symlink(at("circle"), at("circle")).unwrap();
        write_atomically(&at("circle"), b"3").unwrap();
        assert_eq!(fs::read(at("circle")).unwrap(), b"3");

        let pipe = at("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_atomically(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn one_of_many_who_ask_at_once_has_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lock) = lock_out(dir.path()) {
                            assert_eq!(inside.fetch_add(1, order), 0, "two have it");
                            std::thread::yield_now();
                            inside.fetch_sub(1, order);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let text = prepare_out(&file.join("run"), false)
            .unwrap_err()
            .to_string();
        assert!(text.contains("file/run"), "{text}");
        assert!(write_atomically(&dir.path().join("no/such/file"), b"").is_err());
    }

    /// By its number, not by its name.
    #[cfg(unix)]
    #[test]
    fn an_open_file_that_was_removed_or_replaced_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        remove_if_there(&path).unwrap();
        assert!(!is_at(&file, &path));
        fs::write(&path, b"").unwrap();
        assert!(!is_at(&file, &path));
    }

    #[test]
    fn what_cannot_be_removed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        remove_if_there(&dir.path().join("none")).unwrap();
        let text = remove_if_there(dir.path()).unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("{}: ", dir.path().display())),
            "{text}"
        );
    }
}
