//! What a run is resumed from: `checkpoints/step-N.safetensors` in its folder, with everything that
//! the next step depends on. The last two are kept.

use std::fs;
use std::path::{Path, PathBuf};

use super::checkpoint::{self, Tensors};
use super::config::{OF_PLACE, TrainConfig};
use super::interface::Interface;
use super::options::TrainOptions;
use crate::files::remove_if_there;
use crate::graph::Role;
use crate::program::Store;
use crate::{Error, Result};

/// Older ones are removed once a new one is written.
const KEPT: usize = 2;

/// Parameters, running statistics and what the optimiser remembers. The order of images, their
/// augmentation and the schedule follow from the seed and the number of the step.
pub(super) const ROLES: [Role; 3] = [Role::Parameter, Role::Statistic, Role::Optimizer];

/// A run as it was after a step.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Options of the run, but `out`.
    pub options: TrainOptions,
    /// States by name.
    pub tensors: Tensors,
    /// Names of the classes that it was trained on, if the data set had any.
    pub class_names: Option<Vec<String>>,
    /// Newer files that are damaged and were passed over, with the reasons.
    pub damaged: Vec<String>,
}

impl Saved {
    /// The newest checkpoint of the run in `out` that is whole.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, with what is wrong with those that are there.
    pub fn latest(out: &Path) -> Result<Self> {
        let mut damaged = Vec::new();
        for (step, path) in list(out).into_iter().rev() {
            match Self::load(&path, step) {
                Ok(saved) => return Ok(Self { damaged, ..saved }),
                Err(error) => damaged.push(error.to_string()),
            }
        }
        let message = match damaged.as_slice() {
            [] => "there is no checkpoints/step-N.safetensors to resume from; `resume` goes on with the \
                   run that is in `out`"
                .to_string(),
            _ => format!("no checkpoint is whole: {}", damaged.join("; ")),
        };
        Err(Error::checkpoint(out, message))
    }

    /// The checkpoint that was written after `step`, as its name says.
    fn load(path: &Path, step: u64) -> Result<Self> {
        let fail = |message: String| Error::checkpoint(path, message);
        let (tensors, metadata) = checkpoint::load(path)?;
        let entry = |key: &str| {
            let text = metadata.get(key);
            text.ok_or_else(|| fail(format!("has no `{key}`: not written by decorr")))
        };
        let written = entry("step")?;
        if written.parse() != Ok(step) {
            return Err(fail(format!(
                "its `step` is {written:?}, not that of its name"
            )));
        }
        let seconds = entry("seconds")?;
        let is_time = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        let Some(seconds) = seconds.parse().ok().filter(is_time) else {
            return Err(fail(format!("its `seconds` are {seconds:?}, no time")));
        };
        let options: Result<TrainOptions, _> = toml::from_str(entry("config")?);
        let mut options = options.map_err(|e| fail(format!("its `config` is damaged: {e}")))?;
        // Written before there were these options.
        options.refresh.get_or_insert(1);
        options.refresh_after.get_or_insert(0);
        options.tensorboard.get_or_insert(false);
        options.sync_stats.get_or_insert(false);
        Ok(Self {
            path: path.to_path_buf(),
            step,
            seconds,
            options,
            class_names: checkpoint::class_names(path, &metadata)?,
            tensors,
            damaged: Vec::new(),
        })
    }

    /// What to tell a user whose config.toml says something else than this checkpoint: it is not read.
    pub(super) fn edited(&self, config: &Path) -> Option<String> {
        let text = fs::read_to_string(config).ok()?;
        let mine: toml::Table = toml::from_str(&toml::to_string(&self.options).ok()?).ok()?;
        let what = match toml::from_str::<toml::Table>(&text) {
            Ok(found) => {
                let differs = |&(name, value): &(&String, &toml::Value)| {
                    let is_of_place = OF_PLACE.contains(&name.as_str());
                    !is_of_place && mine.get(name) != Some(value)
                };
                let names: Vec<_> = found
                    .iter()
                    .filter(differs)
                    .map(|(name, _)| name.as_str())
                    .collect();
                match names.as_slice() {
                    [] => return None,
                    _ => format!("differs from the checkpoint in {}", names.join(", ")),
                }
            }
            Err(_) => "is damaged".to_string(),
        };
        Some(format!(
            "{} {what}; `resume` goes by the checkpoint and the command line, and writes the file anew",
            config.display()
        ))
    }

    /// Writes `store` as it is after `step`, and removes all but the last two.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; what the device reported.
    pub(super) fn write(
        config: &TrainConfig,
        interface: &Interface,
        store: &Store,
        step: u64,
        seconds: f64,
    ) -> Result<()> {
        let folder = folder(&config.out);
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let mut metadata = config.metadata(step, interface)?;
        metadata.insert("seconds".into(), seconds.to_string());
        let path = folder.join(format!("step-{step:08}.safetensors"));
        checkpoint::save(&path, &checkpoint::from_store(store, &ROLES)?, &metadata)?;
        // Later ones are damaged: the run was resumed from before them.
        let (mut old, later): (Vec<_>, Vec<_>) =
            list(&config.out).into_iter().partition(|&(s, _)| s <= step);
        old.truncate(old.len().saturating_sub(KEPT));
        old.iter()
            .chain(&later)
            .try_for_each(|(_, p)| remove_if_there(p))
    }
}

/// Removes the checkpoints of an earlier run.
///
/// # Errors
/// [`Error::Io`] with the path.
pub(super) fn remove_all(out: &Path) -> Result<()> {
    list(out).iter().try_for_each(|(_, p)| remove_if_there(p))
}

fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// Steps and files, oldest first.
fn list(out: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder(out)) else {
        return Vec::new();
    };
    let mut files: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?;
            Some((step.parse().ok()?, path))
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_config_is_told_of_but_not_its_folder_and_its_threads() {
        let text = "out = 'there'\nworkers = 3\nlr = 0.25\nseed = 9";
        let config = TrainConfig::resolve(toml::from_str(text).unwrap()).unwrap();
        let saved = Saved {
            path: PathBuf::new(),
            step: 1,
            seconds: 1.0,
            options: TrainOptions {
                out: None,
                workers: None,
                ..config.options.clone()
            },
            tensors: Tensors::new(),
            class_names: None,
            damaged: Vec::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(saved.edited(&path), None);
        let written = config.to_toml().unwrap();
        let edited = |from: &str, to: &str| {
            assert!(written.contains(from), "{written}");
            fs::write(&path, written.replace(from, to)).unwrap();
            saved.edited(&path)
        };
        assert_eq!(edited("seed = 9", "seed = 9"), None);
        assert_eq!(edited("workers = 3", "workers = 5"), None);
        assert_eq!(edited("there", "here"), None);
        let goes_by =
            "`resume` goes by the checkpoint and the command line, and writes the file anew";
        let said = |what: &str| Some(format!("{} {what}; {goes_by}", path.display()));
        let found = edited("seed = 9", "seed = 8\nsteps = 7");
        assert_eq!(found, said("differs from the checkpoint in seed, steps"));
        assert_eq!(edited("seed = 9", "seed"), said("is damaged"));
    }
}
