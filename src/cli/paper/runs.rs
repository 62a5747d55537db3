//! Which runs experiments need, in which order, and what became of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use decorr::gpu::Gpu;
use decorr::train::{
    Ended, Event, Planned, Split, TrainConfig, TrainOptions, read_metrics, run_all,
};
use decorr::{Result, data};

use super::experiment::{Group, Line, Scale};
use crate::cli::TuneChoice;
use crate::cli::compare::runs::last;
use crate::cli::train::choose_kernels;

/// What all runs have.
pub(super) struct Setting {
    pub(super) scale: Scale,
    pub(super) seeds: u64,
    /// As given.
    pub(super) data_dir: Option<PathBuf>,
    /// Above all else: what stands after `--`.
    pub(super) options: TrainOptions,
    /// Whether these ask for measured kernels.
    pub(super) measured: bool,
    pub(super) tune: TuneChoice,
    pub(super) out: PathBuf,
}

impl Setting {
    /// The run of `line` with learning rate `lr` and `seed`; `None` if it is not part of this scale.
    pub(super) fn planned(
        &self,
        group: &Group,
        line: &Line,
        lr: Option<f32>,
        seed: u64,
    ) -> Result<Option<Planned>> {
        let Some(options) = group.options(line, self.scale)? else {
            return Ok(None);
        };
        let rate = lr.map_or(String::new(), |lr| format!("_lr-{lr}"));
        let name = format!("{}/{}{rate}_seed-{seed}", group.name, as_folder(line.name));
        let mut options = self.options.clone().over(TrainOptions {
            lr: lr.or(options.lr),
            seed: Some(seed),
            out: Some(self.out.join("runs").join(&name)),
            ..options
        });
        let set = options.data.clone().or_else(|| {
            let preset = options.preset.as_deref()?;
            decorr::train::preset(preset).ok()?.data
        });
        if let Some(set) = set {
            options.data_dir = options.data_dir.or_else(|| self.place(&set));
        }
        Ok(Some(Planned {
            name,
            values: Vec::new(),
            config: TrainConfig::resolve(options)?,
        }))
    }

    /// Where the files of `set` are; `None` for the built-in images.
    fn place(&self, set: &str) -> Option<PathBuf> {
        let default = || PathBuf::from("data");
        match (set, &self.data_dir) {
            // Pictures in folders, of which others may lie beside it.
            ("folder", given) => Some(given.clone().unwrap_or_else(default).join("imagenet")),
            (_, _) if self.scale == Scale::Smoke => None,
            (_, Some(given)) => Some(given.clone()),
            // Not the built-in part of it.
            (_, None) => Some(data::whole_set(set).unwrap_or_else(default)),
        }
    }

    /// Learning rates that `line` is tried with. At the smallest scale two do.
    pub(super) fn rates(&self, line: &Line) -> Vec<Option<f32>> {
        // One that was given is not searched.
        if line.lrs.is_empty() || self.options.lr.is_some() {
            return vec![None];
        }
        let count = if self.scale == Scale::Smoke {
            2
        } else {
            line.lrs.len()
        };
        line.lrs.iter().take(count).copied().map(Some).collect()
    }

    /// How many runs `group` has.
    pub(super) fn count(&self, group: &Group) -> Result<usize> {
        let mut count = 0;
        for line in group.lines {
            if group.options(line, self.scale)?.is_some() {
                count += self.rates(line).len() + self.seeds as usize - 1;
            }
        }
        Ok(count)
    }
}

/// A name for a folder, without what shells or systems take for something else.
fn as_folder(name: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let words = name.split(|c: char| !is_word(c)).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// What became of a line's runs.
#[derive(Debug)]
pub(super) struct LineRuns {
    pub(super) line: &'static Line,
    /// Of each learning rate, if there are several: the accuracy with the first seed, if it ended.
    pub(super) tried: Vec<(f32, Option<f64>)>,
    /// With the best learning rate, one a seed.
    pub(super) runs: Vec<(Planned, Ended)>,
    /// How many runs are to go, of all learning rates and seeds.
    pub(super) open: usize,
}

/// Runs all of `group` that did not run yet: each learning rate with the first seed, then the best one with the others. `tell` has
/// the events, with the number of their run in the group and its name.
///
/// # Errors
/// Those of [`run_all`].
pub(super) fn run_group(
    gpu: &Arc<Gpu>,
    setting: &Setting,
    group: &'static Group,
    stop: &AtomicBool,
    mut tell: impl FnMut(usize, &str, &Event<'_>),
) -> Result<Vec<LineRuns>> {
    let mut before = 0;
    let mut run = |plans: &[Planned]| -> Result<Vec<Ended>> {
        let ended = run_all(gpu, plans, stop, |i, event| {
            tell(before + i, &plans[i].name, &event);
        });
        before += plans.len();
        ended
    };
    let planned = |line: &Line, lr: Option<f32>, seed: u64| -> Result<Option<Planned>> {
        let planned = setting.planned(group, line, lr, seed)?;
        let with_kernels = planned.map(|mut planned| {
            choose_kernels(&mut planned.config, setting.measured, gpu, &setting.tune)?;
            Ok(planned)
        });
        with_kernels.transpose()
    };
    let mut all = Vec::new();
    for line in group.lines {
        let rates = setting.rates(line);
        let mut first = Vec::new();
        for &lr in &rates {
            first.extend(planned(line, lr, 1)?);
        }
        if first.is_empty() {
            continue;
        }
        let ended = run(&first)?;
        let accuracies: Vec<Option<f64>> = first
            .iter()
            .zip(&ended)
            .map(|(planned, ended)| match ended {
                Ended::Done(_) => accuracy(&planned.config.out),
                _ => None,
            })
            .collect();
        let best = best_of(&accuracies);
        let tried = rates.iter().copied().flatten();
        let tried = tried.zip(accuracies.iter().copied()).collect();
        let mut others = Vec::new();
        // It is known which rate is best once all of them ended.
        if !ended
            .iter()
            .any(|e| matches!(e, Ended::Open | Ended::Failed(_)))
        {
            for seed in 2..=setting.seeds {
                others.extend(planned(line, rates[best], seed)?);
            }
        }
        let ended_others = run(&others)?;
        let open = to_go(&ended, &ended_others, setting.seeds);
        let mut runs: Vec<(Planned, Ended)> = first.into_iter().zip(ended).collect();
        let mut runs = vec![runs.swap_remove(best)];
        runs.extend(others.into_iter().zip(ended_others));
        all.push(LineRuns {
            line,
            tried,
            runs,
            open,
        });
    }
    Ok(all)
}

/// The place of the greatest accuracy, the first of equals.
fn best_of(accuracies: &[Option<f64>]) -> usize {
    let value = |i: usize| accuracies[i].unwrap_or(-1.0);
    let best = (0..accuracies.len())
        .rev()
        .max_by(|&a, &b| value(a).total_cmp(&value(b)));
    best.unwrap_or(0)
}

/// How many runs are to go: `first` are those of each learning rate, `others` those of the seeds from 2 on that began.
fn to_go(first: &[Ended], others: &[Ended], seeds: u64) -> usize {
    let is_open = |e: &&Ended| matches!(e, Ended::Open);
    let open = first.iter().chain(others).filter(is_open).count();
    // Which rate the others have is not known yet.
    let others = match first.iter().any(|e| is_open(&e)) {
        true => seeds as usize - 1,
        false => 0,
    };
    open + others
}

/// Of the last test of the run in `out`.
fn accuracy(out: &Path) -> Option<f64> {
    let records = read_metrics(&out.join("metrics.jsonl")).ok()?;
    last(&records, Split::Test)?.top1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paper::experiments::ALL;

    fn setting(scale: Scale, data_dir: Option<&str>) -> Setting {
        Setting {
            scale,
            seeds: 3,
            data_dir: data_dir.map(PathBuf::from),
            options: TrainOptions::default(),
            measured: false,
            tune: TuneChoice { no_tune: false },
            out: "there".into(),
        }
    }

    fn group(name: &str) -> &'static Group {
        let mut groups = ALL.iter().flat_map(|e| e.what.groups());
        groups.find(|group| group.name == name).unwrap()
    }

    #[test]
    fn a_run_has_its_folder_its_rate_and_its_seed() {
        let group = group("cifar10-vgg11");
        let laptop = setting(Scale::Laptop, Some("sets"));
        let line = &group.lines[3];
        let run = laptop.planned(group, line, Some(0.03), 2).unwrap().unwrap();
        assert_eq!(run.name, "cifar10-vgg11/deconvolution_lr-0.03_seed-2");
        let o = &run.config.options;
        assert_eq!((o.lr, o.seed, o.epochs), (Some(0.03), Some(2), Some(5)));
        assert_eq!(o.out, Some(Path::new("there/runs").join(&run.name)));
        assert_eq!(o.data_dir, Some("sets".into()));
        assert_eq!(laptop.count(group).unwrap(), 4 * (3 + 2));
        // A rate that is given is the only one.
        let mut given = setting(Scale::Laptop, None);
        given.options.lr = Some(0.5);
        assert_eq!(given.rates(line), [None]);
        let run = given.planned(group, line, None, 1).unwrap().unwrap();
        assert_eq!(run.config.lr, 0.5);
        assert!(run.name.ends_with("/deconvolution_seed-1"), "{}", run.name);
        assert_eq!(
            setting(Scale::Smoke, None).rates(line),
            [Some(0.1), Some(0.03)]
        );
    }

    #[test]
    fn the_best_rate_is_the_first_of_the_most_accurate() {
        for (accuracies, best) in [
            (&[Some(0.25), Some(0.75), Some(0.5)][..], 1),
            (&[Some(0.5), Some(0.75), Some(0.75), Some(0.25)], 1),
            (&[None, Some(0.0), None], 1),
            (&[None, None], 0),
            (&[Some(0.5)], 0),
        ] {
            assert_eq!(best_of(accuracies), best, "{accuracies:?}");
        }
    }

    /// Of three seeds. The second and third wait for all rates of the first.
    #[test]
    fn runs_to_go_are_counted_with_those_that_wait() {
        let ended = |kinds: &str| -> Vec<Ended> {
            let one = |kind| match kind {
                'o' => Ended::Open,
                'd' => Ended::Diverged("nan".into()),
                _ => Ended::Failed("no data".into()),
            };
            kinds.chars().map(one).collect()
        };
        for (first, others, wanted) in [
            ("dd", "dd", 0),
            ("dd", "do", 1),
            ("dd", "oo", 2),
            ("do", "", 1 + 2),
            ("oo", "", 2 + 2),
            ("df", "", 0),
            ("o", "", 1 + 2),
        ] {
            let open = to_go(&ended(first), &ended(others), 3);
            assert_eq!(open, wanted, "{first} {others}");
        }
    }

    #[test]
    fn data_are_where_they_are_said_to_be() {
        let place = |scale, dir, set: &str| setting(scale, dir).place(set);
        assert_eq!(place(Scale::Smoke, Some("sets"), "fashion-mnist"), None);
        assert_eq!(
            place(Scale::Paper, Some("sets"), "mnist"),
            Some("sets".into())
        );
        assert_eq!(
            place(Scale::Paper, Some("sets"), "folder"),
            Some("sets/imagenet".into())
        );
        assert_eq!(
            place(Scale::Laptop, None, "folder"),
            Some("data/imagenet".into())
        );
        assert_eq!(place(Scale::Laptop, None, "cifar10"), Some("data".into()));
    }

    #[test]
    fn names_of_folders_are_words() {
        assert_eq!(
            as_folder("deconvolution, lr 1, n_iter 5"),
            "deconvolution-lr-1-n_iter-5"
        );
        assert_eq!(as_folder("a/../b"), "a-..-b");
    }
}
