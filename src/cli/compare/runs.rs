//! Runs by their folders: what is read, which belong together, how they differ.

use std::path::Path;

use decorr::train::{Record, Split, read_metrics, running_mean, steps_per_epoch};
use decorr::{Error, Result};
use toml::Table;

use crate::cli::plain;

/// What `decorr train` left in a folder.
#[derive(Debug)]
pub(in crate::cli) struct Run {
    /// The folder's own.
    pub(super) name: String,
    /// As it was given.
    path: String,
    pub(in crate::cli) records: Vec<Record>,
    /// config.toml, empty if there is none.
    pub(super) config: Table,
    /// Of run.json, which older runs have not.
    pub(super) adapter: Option<String>,
    pub(in crate::cli) steps_per_epoch: Option<f64>,
    data_sha256: Option<String>,
}

impl Run {
    /// Options may be those of another version of decorr, so what is not asked for is not looked at.
    pub(in crate::cli) fn read(path: &Path) -> Result<Self> {
        let metrics = path.join("metrics.jsonl");
        if path.is_dir() && !metrics.exists() {
            return Err(Error::Config(format!(
                "{} is no run: it holds no metrics.jsonl; give a folder that `decorr train` wrote (its --out)",
                path.display()
            )));
        }
        let whole = path.canonicalize().map_err(|e| Error::io(path, e))?;
        let last = whole.file_name().unwrap_or(whole.as_os_str());
        let records = read_metrics(&metrics)?;
        let file = path.join("config.toml");
        let text = if_there(&file)?.unwrap_or_default();
        let config: Table = toml::from_str(&text).map_err(|e| Error::data(&file, e.to_string()))?;
        let file = path.join("run.json");
        let text = if_there(&file)?.unwrap_or_else(|| "{}".into());
        let info: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::data(&file, e.to_string()))?;
        let word = |key: &str| info[key].as_str().map(plain);
        let batch = config.get("batch-size").and_then(toml::Value::as_integer);
        Ok(Self {
            name: plain(&last.to_string_lossy()),
            path: plain(&path.to_string_lossy()),
            steps_per_epoch: steps_per_epoch(&records).or_else(|| {
                // Images that fill no batch are left out.
                let steps = info["images"][0].as_i64()?.checked_div(batch?)?;
                (steps > 0).then_some(steps as f64)
            }),
            records,
            adapter: word("adapter"),
            data_sha256: word("data_sha256"),
            config,
        })
    }

    /// An option of config.toml, as it would be given.
    pub(super) fn option(&self, name: &str) -> Option<String> {
        Some(text_of(self.config.get(name)?))
    }
}

/// A value of config.toml, as it would be given.
pub(in crate::cli) fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => plain(text),
        // Written as an f32.
        toml::Value::Float(value) => (*value as f32).to_string(),
        other => other.to_string(),
    }
}

/// What was logged last of the training, or of the tests.
pub(in crate::cli) fn last(records: &[Record], split: Split) -> Option<&Record> {
    records.iter().rfind(|r| r.split == split)
}

/// Steps and losses of the training that are numbers.
pub(in crate::cli) fn train_losses(records: &[Record]) -> Vec<(f64, f64)> {
    let train = records.iter().filter(|r| r.split == Split::Train);
    train
        .filter_map(|r| Some((r.step as f64, r.loss?)))
        .collect()
}

/// The last running mean of the training's losses; NaN of a run that ended without a number.
pub(in crate::cli) fn last_train_loss(records: &[Record], smooth: Option<usize>) -> Option<f64> {
    match last(records, Split::Train)?.loss {
        None => Some(f64::NAN),
        Some(_) => running_mean(&train_losses(records), smooth)
            .last()
            .map(|p| p.1),
    }
}

fn if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|e| Error::io(path, e)),
    }
}

/// Options in which runs of one line may differ.
pub(super) const SEEDS: [&str; 3] = ["seed", "out", "workers"];

/// The runs that are one line, by their places: each by itself, or those whose options are the same but for some.
pub(super) fn groups(runs: &[Run], but_for: Option<&[&str]>) -> Vec<Vec<usize>> {
    let Some(but_for) = but_for else {
        return (0..runs.len()).map(|i| vec![i]).collect();
    };
    let mut groups: Vec<(Table, Vec<usize>)> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let mut key = run.config.clone();
        key.retain(|name, _| !but_for.contains(&name));
        // Runs without options are not known to be the same.
        let same = groups
            .iter_mut()
            .find(|group| !key.is_empty() && group.0 == key);
        match same {
            Some(group) => group.1.push(i),
            None => groups.push((key, vec![i])),
        }
    }
    groups.into_iter().map(|group| group.1).collect()
}

/// A name for each group by the options in which groups differ, but for some: `norm batch, lr 0.1`.
pub(super) fn names_by_options(
    runs: &[Run],
    groups: &[Vec<usize>],
    but_for: &[&str],
) -> Vec<String> {
    let of = |group: &Vec<usize>, name: &str| {
        let run = group.first().map(|&i| &runs[i])?;
        Some(format!("{name} {}", run.option(name)?))
    };
    let mut options: Vec<&str> = Vec::new();
    for name in runs.iter().flat_map(|run| run.config.keys()) {
        let differ = groups.iter().any(|g| of(g, name) != of(&groups[0], name));
        if differ && !but_for.contains(&name.as_str()) && !options.contains(&name.as_str()) {
            options.push(name);
        }
    }
    let name = |group: &Vec<usize>| {
        let parts: Vec<String> = options.iter().filter_map(|name| of(group, name)).collect();
        match parts.is_empty() {
            true => "all runs".to_string(),
            false => parts.join(", "),
        }
    };
    groups.iter().map(name).collect()
}

/// A name for each group: what the names of its runs begin with; as the folders were given if that is not enough to tell them
/// apart.
pub(super) fn names(runs: &[Run], groups: &[Vec<usize>]) -> Vec<String> {
    let by = |name: fn(&Run) -> &str| -> Vec<String> {
        let of = |group: &Vec<usize>| {
            beginning(&group.iter().map(|&i| name(&runs[i])).collect::<Vec<_>>())
        };
        groups.iter().map(of).collect()
    };
    let short = by(|run| &run.name);
    let are_distinct = (1..short.len()).all(|i| !short[..i].contains(&short[i]));
    if are_distinct {
        short
    } else {
        by(|run| &run.path)
    }
}

/// What all names have in common at their beginning, without `-s` or `-seed` behind it; the first name if that is nothing.
fn beginning(names: &[&str]) -> String {
    let [first, others @ ..] = names else {
        return String::new();
    };
    if others.is_empty() {
        return (*first).into();
    }
    let is_common = |end: &usize| others.iter().all(|name| name.starts_with(&first[..*end]));
    let ends = first.char_indices().map(|(i, c)| i + c.len_utf8());
    let end = ends.take_while(is_common).last().unwrap_or(0);
    let separators = ['-', '_', '.', '/'];
    let common = first[..end].trim_end_matches(separators);
    let common = match common.rsplit_once(separators) {
        Some((before, "s" | "seed")) => before,
        _ => common,
    };
    if common.is_empty() { first } else { common }.into()
}

/// `names`, or those that were given, of which there must be one for each.
pub(super) fn name_all(names: Vec<String>, given: &[String], of: &str) -> Result<Vec<String>> {
    if given.is_empty() {
        return Ok(names);
    }
    if given.len() != names.len() {
        return Err(Error::Config(format!(
            "--names has {} for {} {of}",
            given.len(),
            names.len()
        )));
    }
    Ok(given.iter().map(|name| plain(name)).collect())
}

/// Sentences about what keeps numbers of `runs` from being compared.
pub(super) fn differences(runs: &[Run]) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut differ = |what: &str, value: &dyn Fn(&Run) -> Option<String>| -> bool {
        let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
        for run in runs {
            let Some(value) = value(run) else { continue };
            match kinds.iter_mut().find(|kind| kind.0 == value) {
                Some(kind) => kind.1.push(&run.name),
                None => kinds.push((value, vec![&run.name])),
            }
        }
        if kinds.len() > 1 {
            let kinds = kinds
                .iter()
                .map(|(value, names)| format!("{value} ({})", names.join(", ")));
            sentences.push(format!("{what}: {}", kinds.collect::<Vec<_>>().join(", ")));
            return true;
        }
        false
    };
    differ(
        "the runs have different losses, which cannot be compared",
        &|run| run.option("loss"),
    );
    let what = "the runs have different data sets";
    if !differ(what, &|run| run.option("data")) {
        let short = |sum: &String| sum.chars().take(8).collect();
        differ(
            "the runs have different images of the same data set, by the checksum in run.json",
            &|run| run.data_sha256.as_ref().map(short),
        );
    }
    sentences
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;

    /// `/runs/NAME` with these options.
    pub(in crate::cli) fn run(name: &str, config: &str) -> Run {
        Run {
            name: name.into(),
            path: format!("runs/{name}"),
            records: Vec::new(),
            config: toml::from_str(config).unwrap(),
            adapter: None,
            steps_per_epoch: None,
            data_sha256: None,
        }
    }

    #[test]
    fn runs_that_differ_in_their_seed_are_one_group() {
        let runs = [
            run("deconv-s1", "lr = 0.1\nseed = 1\nout = 'a'"),
            run("batch-1", "lr = 0.2\nseed = 1"),
            run("deconv-s2", "lr = 0.1\nseed = 2\nout = 'b'\nworkers = 4"),
            run("old", ""),
            run("older", ""),
        ];
        let seeds = groups(&runs, Some(&SEEDS));
        assert_eq!(seeds, [vec![0, 2], vec![1], vec![3], vec![4]]);
        assert_eq!(groups(&runs, None).len(), 5);
        assert_eq!(names(&runs, &seeds), ["deconv", "batch-1", "old", "older"]);
    }

    #[test]
    fn lines_over_an_option_are_named_by_the_others() {
        let runs = [
            run("a", "norm = 'batch'\nlr = 0.1\nseed = 1"),
            run("b", "norm = 'batch'\nlr = 0.2\nseed = 1"),
            run("c", "norm = 'deconv'\nlr = 0.2\nseed = 2"),
        ];
        let but_for = ["seed", "out", "workers", "lr"];
        let lines = groups(&runs, Some(&but_for));
        assert_eq!(lines, [vec![0, 1], vec![2]]);
        assert_eq!(
            names_by_options(&runs, &lines, &but_for),
            ["norm batch", "norm deconv"]
        );
        assert_eq!(
            names_by_options(&runs[..2], &[vec![0, 1]], &but_for),
            ["all runs"]
        );
    }

    #[test]
    fn names_tell_runs_apart() {
        assert_eq!(beginning(&["vgg_seed1", "vgg_seed2"]), "vgg");
        assert_eq!(beginning(&["a1", "b1"]), "a1");
        assert_eq!(beginning(&["é1", "è1"]), "é1");
        let mut two = [run("a", ""), run("a", "")];
        two[1].path = "other/a".into();
        assert_eq!(names(&two, &groups(&two, None)), ["runs/a", "other/a"]);
        let given = ["x".to_string()];
        let error = name_all(vec!["a".into(), "b".into()], &given, "runs").unwrap_err();
        assert_eq!(error.to_string(), "--names has 1 for 2 runs");
        assert_eq!(name_all(vec!["a".into()], &given, "runs").unwrap(), ["x"]);
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let of = |configs: &[&str]| {
            let runs: Vec<Run> = configs
                .iter()
                .zip(["a", "b", "c"])
                .map(|(c, n)| run(n, c))
                .collect();
            differences(&runs)
        };
        assert!(
            of(&[
                "loss = 'ce'\ndata = 'mnist'",
                "loss = 'ce'\ndata = 'mnist'",
                ""
            ])
            .is_empty()
        );
        assert_eq!(
            of(&["loss = 'ce'", "loss = 'l2'", "loss = 'ce'"]),
            ["the runs have different losses, which cannot be compared: ce (a, c), l2 (b)"]
        );
        let sets = of(&["data = 'mnist'", "data = 'cifar10'"]);
        assert_eq!(
            sets,
            ["the runs have different data sets: mnist (a), cifar10 (b)"]
        );
        let mut two = [run("a", "data = 'folder'"), run("b", "data = 'folder'")];
        two[0].data_sha256 = Some("0123456789".into());
        two[1].data_sha256 = Some("9876543210".into());
        assert!(differences(&two)[0].ends_with("run.json: 01234567 (a), 98765432 (b)"));
    }
}
