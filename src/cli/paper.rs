//! `decorr paper`.

mod experiment;
mod experiments;
mod html;
mod isometry;
mod optimum;
mod pictures;
mod report;
mod results;
mod runs;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use decorr::files::make_folder;
use decorr::gpu::Gpu;
use decorr::train::Ended;
use decorr::{Error, Result};

use super::sums::Sums;
use super::sweep::train_options;
use super::train::{stop_on_signal, without_measured};
use super::{AdapterArgs, TuneChoice, note, print};
use experiment::{Experiment, Group, Scale, What};
use report::{Outcome, Part};
use results::GroupResults;
use runs::{LineRuns, Setting, run_group};

#[derive(Debug, Args)]
pub(super) struct PaperArgs {
    /// Figures, tables and sections; `all` for all
    #[arg(required = true, value_name = "WHAT", value_parser = names())]
    what: Vec<String>,
    /// How much is trained
    #[arg(long, value_enum, default_value_t = Scale::Laptop)]
    scale: Scale,
    /// Seeds of each run [default: 3; 1 at scale smoke]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Folder of the data sets, as `decorr data fetch` lays them out; ImageNet in its folder `imagenet`, with train/ and val/ [default:
    /// data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder for the report and the runs [default: runs/paper-SCALE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    tune: TuneChoice,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Options of `decorr train` that all runs have in place of the scale's
    #[arg(last = true, value_name = "TRAIN OPTIONS", allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(super) const EXAMPLES: &str = "\
Everything, in two minutes, to see that it works:

    decorr paper all --scale smoke

Figure 5 on a computer without a GPU, with a narrow network:

    decorr paper fig5 --data-dir data --out runs/fig5-narrow -- --width 0.125 --epochs 5

Open index.html in --out. Finished runs are not run again, and interrupted ones go on: give the same command again.";

fn names() -> PossibleValuesParser {
    let value = |e: &Experiment| PossibleValue::new(e.name).help(e.title);
    let all = PossibleValue::new("all").help("All of these");
    PossibleValuesParser::new(experiments::ALL.iter().map(value).chain([all]))
}

pub(super) fn run(args: &PaperArgs) -> Result<()> {
    let options = train_options(&args.options)?;
    for (name, is_given) in [
        ("out", options.out.is_some()),
        ("data_dir", options.data_dir.is_some()),
        ("seed", options.seed.is_some()),
    ] {
        if is_given {
            let message = format!("`{name}` stands before `--`, not after it (`seeds` for `seed`)");
            return Err(Error::Config(message));
        }
    }
    let (options, measured) = without_measured(options);
    let setting = Setting {
        scale: args.scale,
        seeds: args
            .seeds
            .unwrap_or(if args.scale == Scale::Smoke { 1 } else { 3 }),
        data_dir: args.data_dir.clone(),
        options,
        measured,
        tune: args.tune.clone(),
        out: args
            .out
            .clone()
            .unwrap_or_else(|| format!("runs/paper-{}", args.scale.name()).into()),
    };
    let is_wanted = |e: &&Experiment| args.what.iter().any(|w| w == e.name || w == "all");
    let wanted: Vec<&'static Experiment> = experiments::ALL.iter().filter(is_wanted).collect();
    let mut count = 0;
    let mut groups: Vec<&'static Group> = Vec::new();
    for group in wanted.iter().flat_map(|e| e.what.groups()) {
        if !groups.iter().any(|g| g.name == group.name) {
            groups.push(group);
            count += setting.count(group)?;
            // Options that make no sense are refused before anything runs.
            for line in group.lines {
                setting.planned(group, line, None, 1)?;
            }
        }
    }
    let gpu = args.adapter.open_to_run()?;
    make_folder(&setting.out)?;
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("decorr {}", command.join(" "));
    let stop = stop_on_signal();
    let mut progress = Sums::new(count);
    let mut before = 0;
    let mut done: Vec<Rc<Outcome>> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for experiment in wanted {
        let picture = match experiment.what {
            What::Picture(picture) => Some(picture.draw(&gpu)?),
            What::Runs(_) => None,
        };
        let mut groups = Vec::new();
        for &group in experiment.what.groups() {
            let known = done.iter().find(|outcome| outcome.group.name == group.name);
            groups.push(match known {
                Some(outcome) => Rc::clone(outcome),
                None => {
                    let lines = run_group(&gpu, &setting, group, &stop, |i, name, event| {
                        progress.after(before + i);
                        progress.lines(name, event).iter().for_each(note);
                    })?;
                    before += setting.count(group)?;
                    let outcome = Rc::new(outcome(&gpu, group, &lines, &setting)?);
                    done.push(Rc::clone(&outcome));
                    outcome
                }
            });
        }
        let part = Part {
            experiment,
            groups,
            picture,
        };
        part.write(&setting)?;
        parts.push(part);
        // A page early, and after each.
        report::write_page(&setting, &command, &parts)?;
    }
    for part in &parts {
        for failure in part.failures() {
            note(format_args!("{}: {failure}", part.experiment.name));
        }
    }
    print(format_args!(
        "wrote {}",
        setting.out.join("index.html").display()
    ));
    if done.iter().any(|outcome| outcome.open > 0) {
        note("not all runs are finished: give the same command again to go on");
    }
    let failed = parts.iter().filter(|part| !part.failures().is_empty());
    match failed.count() {
        0 => Ok(()),
        failed => Err(Error::Config(format!(
            "{failed} of {} experiments could not run in full, for the reasons above",
            parts.len()
        ))),
    }
}

/// What became of the runs of `group`.
fn outcome(
    gpu: &Arc<Gpu>,
    group: &'static Group,
    lines: &[LineRuns],
    setting: &Setting,
) -> Result<Outcome> {
    let runs = lines.iter().flat_map(|line| &line.runs);
    let failed = runs.filter_map(|(_, ended)| match ended {
        Ended::Failed(why) => Some(why.clone()),
        _ => None,
    });
    let mut failures = distinct(failed);
    let results = match GroupResults::collect(gpu, group, lines, &setting.out) {
        Ok(results) => Some(results),
        Err(error @ Error::Io { .. }) => return Err(error),
        Err(error) => {
            failures.push(format!(
                "{}: {error}. To run it again, remove the folder of that run",
                group.title
            ));
            None
        }
    };
    Ok(Outcome {
        group,
        open: lines.iter().map(|line| line.open).sum(),
        failures,
        results,
    })
}

/// Each once, in the order in which they come first.
fn distinct(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}
