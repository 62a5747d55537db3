//! Several runs one after the other, each in a folder of its own: what is there is not done again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use super::config::{OF_PLACE, TrainConfig};
use super::options::TrainOptions;
use super::resume::Saved;
use super::run::{Event, Outcome, Start, train};
use super::run_info::RunInfo;
use crate::gpu::Gpu;
use crate::{Error, Result};

/// Most runs of a sweep: more are a mistake in the command.
const MOST: usize = 10_000;

/// Options that change no result.
pub const NO_RESULT: [&str; 5] = ["out", "workers", "log-every", "save-every", "tensorboard"];

/// An option and the values that it takes in turn, as in config.toml: `weight-decay`, [`0`, `5e-4`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Of the option, as in config.toml.
    pub name: String,
    /// As typed.
    pub values: Vec<String>,
}

impl std::str::FromStr for Vary {
    type Err = String;

    /// Reads `weight-decay=0,5e-4`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('=');
        let (name, values) = parts.ok_or("expected NAME=VALUE,VALUE,...")?;
        let name = name.trim().trim_start_matches("--").replace('_', "-");
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_string()).collect();
        match values.iter().any(String::is_empty) {
            true => Err(format!("{name} has an empty value")),
            false => Ok(Self { name, values }),
        }
    }
}

/// A run of a sweep.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Of its folder: `norm-deconv_lr-0.1`.
    pub name: String,
    /// The value of each option that varies.
    pub values: Vec<String>,
    /// What its options come to, `out` among them.
    pub config: TrainConfig,
}

/// Every combination of values in `vary`, the last option fastest, over `base`; each in a folder of `out`.
///
/// # Errors
/// [`Error::Config`] for an option that there is not, that varies twice or is `out`, a value that it cannot have, a value that
/// comes twice, or too many runs.
pub fn combinations(base: &TrainOptions, vary: &[Vary], out: &Path) -> Result<Vec<Planned>> {
    let mut all = vec![(Vec::new(), toml::Table::new())];
    for (i, Vary { name, values }) in vary.iter().enumerate() {
        if vary[..i].iter().any(|other| other.name == *name) {
            return Err(Error::Config(format!("{name} varies twice")));
        }
        if NO_RESULT.contains(&name.as_str()) {
            let message = format!("{name} changes no result: nothing is seen by varying it");
            return Err(Error::Config(message));
        }
        if let Some((i, value)) = (1..).zip(values).find(|(i, v)| values[*i..].contains(v)) {
            let message = format!("{name} has the value {value} twice, the first as number {i}");
            return Err(Error::Config(message));
        }
        for value in values {
            let alone = toml::Table::from_iter([(name.clone(), value_of(value))]);
            let fail = |e: toml::de::Error| format!("{name}={value}: {}", e.message());
            let read = TrainOptions::deserialize(alone).map_err(fail);
            read.map_err(Error::Config)?;
        }
        if all.len().saturating_mul(values.len()) > MOST {
            return Err(Error::Config(format!("these are more than {MOST} runs")));
        }
        let mut next = Vec::new();
        for (chosen, table) in all {
            for value in values {
                let (mut chosen, mut table): (Vec<String>, toml::Table) =
                    (chosen.clone(), table.clone());
                chosen.push(value.clone());
                table.insert(name.clone(), value_of(value));
                next.push((chosen, table));
            }
        }
        all = next;
    }
    let planned = |(values, table): (Vec<String>, toml::Table)| {
        let varied: TrainOptions = table
            .try_into()
            .map_err(|e: toml::de::Error| Error::Config(e.message().to_string()))?;
        let parts: Vec<String> = vary.iter().zip(&values).map(part_of_name).collect();
        let name = parts.join("_");
        let options = TrainOptions {
            out: Some(out.join(&name)),
            ..varied.over(base.clone())
        };
        let config = TrainConfig::resolve(options).map_err(|e| of_run(&name, e))?;
        Ok(Planned {
            name,
            values,
            config,
        })
    };
    all.into_iter().map(planned).collect()
}

/// A value as TOML, which without quotes is a text.
fn value_of(text: &str) -> toml::Value {
    let table: Option<toml::Table> = toml::from_str(&format!("v = {text}")).ok();
    let value = table.and_then(|mut table| table.remove("v"));
    value.unwrap_or_else(|| toml::Value::String(text.into()))
}

/// `lr-0.1`; what a folder's name cannot have becomes a dash.
fn part_of_name((vary, value): (&Vary, &String)) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || ".+-".contains(c);
    let value: String = value
        .chars()
        .map(|c| if is_safe(c) { c } else { '-' })
        .collect();
    format!("{}-{value}", vary.name)
}

fn of_run(name: &str, error: Error) -> Error {
    match error {
        Error::Config(message) => Error::Config(format!("{name}: {message}")),
        other => other,
    }
}

/// How a run of a sweep ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// By its last step, now or in an earlier session.
    Done(Box<RunInfo>),
    /// Its loss was no number; why.
    Diverged(String),
    /// It could not run: its data set is missing, say. The others go on.
    Failed(String),
    /// It was interrupted, or its turn did not come.
    Open,
}

/// Runs each of `runs` by [`train`]: goes on where one was interrupted, and leaves what is done or
/// diverged as it is. A run that fails does not keep the others from running; `stop` ends the one that runs as it ends
/// [`train`], and those after it stay [`Ended::Open`]. `tell` is told the number of the run with each event.
///
/// # Errors
/// [`Error::Config`] if a folder holds a run with other options; those that the others would meet, too: a full disk, a device
/// that is lost.
pub fn run_all(
    gpu: &Arc<Gpu>,
    runs: &[Planned],
    stop: &AtomicBool,
    mut tell: impl FnMut(usize, Event<'_>),
) -> Result<Vec<Ended>> {
    for run in runs {
        refuse_others(&run.config)?;
    }
    let mut all = Vec::new();
    for (i, Planned { config, .. }) in runs.iter().enumerate() {
        let ended = match ended(&config.out) {
            Some(ended) => ended,
            None if stop.load(Ordering::Relaxed) => Ended::Open,
            None => match train(gpu, config, start(&config.out), stop, |event| {
                tell(i, event);
            }) {
                Ok(Outcome {
                    interrupted: true, ..
                }) => Ended::Open,
                Ok(_) => Ended::Done(Box::new(RunInfo::read(&config.out)?)),
                Err(Error::Diverged(why)) => Ended::Diverged(why),
                Err(error @ (Error::Data { .. } | Error::Shape { .. } | Error::Limit(_))) => {
                    Ended::Failed(error.to_string())
                }
                Err(error) => return Err(error),
            },
        };
        all.push(ended);
    }
    Ok(all)
}

/// How the run in `out` ended, if it did.
fn ended(out: &Path) -> Option<Ended> {
    let info = RunInfo::read(out).ok()?;
    match &info.diverged {
        Some(why) => Some(Ended::Diverged(why.clone())),
        None => info.finished.then_some(Ended::Done(Box::new(info))),
    }
}

/// Where the run in `out`, which did not end, goes on.
fn start(out: &Path) -> Start {
    match Saved::latest(out) {
        Ok(saved) => Start::Resume(Box::new(saved)),
        Err(_) if out.join("config.toml").exists() => Start::Over,
        Err(_) => Start::New,
    }
}

/// Refuses a folder whose run has other options than `config`.
fn refuse_others(config: &TrainConfig) -> Result<()> {
    let path = config.out.join("config.toml");
    if !path.exists() {
        return Ok(());
    }
    // Options that it was written without have their defaults.
    let found = TrainConfig::resolve(TrainOptions::read(&path)?)?.to_table()?;
    let wanted = config.to_table()?;
    let names: BTreeSet<&str> = found
        .keys()
        .chain(wanted.keys())
        .map(String::as_str)
        .collect();
    // The data's checksum is in run.json; where its files lie is not what the run is.
    let is_place = |name: &str| OF_PLACE.contains(&name) || name == "data-dir";
    let differs = |name: &&str| !is_place(name) && found.get(*name) != wanted.get(*name);
    let others: Vec<&str> = names.into_iter().filter(differs).collect();
    match others.as_slice() {
        [] => Ok(()),
        others => Err(Error::Config(format!(
            "{} holds a run that differs in {}: give another `out`, or remove that folder",
            config.out.display(),
            others.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::checkpoint::{self, Tensors};
    use super::*;
    use crate::models::Norm;

    fn vary(texts: &[&str]) -> Vec<Vary> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_combination_has_a_folder_and_its_options() {
        let base = TrainOptions {
            lr: Some(0.5),
            seed: Some(9),
            ..TrainOptions::default()
        };
        let vary = vary(&["norm=batch,deconv", "weight_decay=0,5e-4,1e-3"]);
        let runs = combinations(&base, &vary, Path::new("there")).unwrap();
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(
            names[..2],
            ["norm-batch_weight-decay-0", "norm-batch_weight-decay-5e-4"]
        );
        assert_eq!(names.len(), 6);
        let last = &runs[5];
        assert_eq!(last.values, ["deconv", "1e-3"]);
        let o = &last.config.options;
        assert_eq!((o.norm, o.weight_decay), (Some(Norm::Deconv), Some(1e-3)));
        assert_eq!((o.lr, o.seed), (Some(0.5), Some(9)));
        let out = Path::new("there/norm-deconv_weight-decay-1e-3");
        assert_eq!(o.out.as_deref(), Some(out));
        // Without anything that varies there is the one run.
        let one = combinations(&base, &[], Path::new("there")).unwrap();
        assert_eq!((one.len(), one[0].name.as_str()), (1, ""));
    }

    /// One without a checkpoint begins over.
    #[test]
    fn an_interrupted_run_goes_on_from_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        assert!(matches!(start(out), Start::New));
        fs::write(out.join("config.toml"), "").unwrap();
        assert!(matches!(start(out), Start::Over));
        let metadata = [("step", "5"), ("seconds", "1.5"), ("config", "")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string()));
        fs::create_dir(out.join("checkpoints")).unwrap();
        let path = out.join("checkpoints/step-00000005.safetensors");
        checkpoint::save(&path, &Tensors::new(), &metadata.into()).unwrap();
        match start(out) {
            Start::Resume(saved) => assert_eq!((saved.step, saved.seconds), (5, 1.5)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_vary_is_refused_by_its_name() {
        let refused = |texts: &[&str]| {
            let found = combinations(&TrainOptions::default(), &vary(texts), Path::new("o"));
            found.unwrap_err().to_string()
        };
        for (texts, wanted) in [
            (&["nrom=batch"][..], "nrom"),
            (&["norm=bath"], "bath"),
            (&["lr=fast"], "lr=fast: invalid type"),
            (&["lr=0.1,-1"], "lr--1: `lr` -1 is not a positive number"),
            (&["lr=0.1,0.2", "lr=0.3"], "lr varies twice"),
            (
                &["seed=1,2,3,2"],
                "seed has the value 2 twice, the first as number 2",
            ),
            (&["out=a,b"], "out changes no result"),
            (&["tensorboard=true,false"], "tensorboard changes no"),
        ] {
            let text = refused(texts);
            assert!(text.contains(wanted), "{texts:?}: {text}");
        }
        let many: Vec<String> = (0..101).map(|i| i.to_string()).collect();
        let many = many.join(",");
        let text = refused(&[&format!("seed={many}"), &format!("epochs={}", &many[2..])]);
        assert!(text.contains("more than 10000"), "{text}");
        assert!("lr".parse::<Vary>().is_err() && "lr=1,,2".parse::<Vary>().is_err());
    }

    #[test]
    fn names_of_folders_have_nothing_that_leads_elsewhere() {
        let vary: Vary = "data-dir=../a b".parse().unwrap();
        assert_eq!(part_of_name((&vary, &vary.values[0])), "data-dir-..-a-b");
        assert_eq!(value_of("5e-4"), toml::Value::Float(5e-4));
        assert_eq!(value_of("true"), toml::Value::Boolean(true));
        assert_eq!(
            value_of("tiled:16x16x4"),
            toml::Value::String("tiled:16x16x4".into())
        );
    }
}
