//! `decorr compare`.

mod log;
pub(super) mod runs;
pub(super) mod table;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use decorr::files::{expect_ending, write_atomically};
use decorr::train::{
    CurveOptions, Line, Points, Split, TrainOptions, XAxis, YAxis, draw_curves, draw_points,
};
use decorr::{Error, Result};

use super::{note, print, print_json};
use runs::{Run, SEEDS, differences, groups, last, name_all, names, names_by_options};
use table::{Row, footnotes, markdown, text};

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Folders that `decorr train` wrote (its --out), finished or running
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Draw their curves: lines for the training batches (running mean), dots for the tests. A run whose loss diverged does not
    /// widen the axis
    #[arg(long, value_name = "FILE.png|FILE.svg")]
    out: Option<PathBuf>,
    /// What is drawn over: step, epoch or seconds, or the name of an option of `decorr train`, as weight-decay: then the last test
    /// of each run, as dots, over the option's value; runs that differ in it alone (and in their seed) are one line
    #[arg(long, value_name = "step|epoch|seconds|OPTION", default_value = "step", value_parser = Over::parse)]
    x: Over,
    /// What the drawing is of [default: loss and top1, side by side; over an option, top1]
    #[arg(long, value_enum)]
    y: Option<YAxis>,
    /// Draw with logarithmic y axes
    #[arg(long)]
    log: bool,
    /// Running mean over N logged steps, for the curves and for the train loss of the table; 1: none [default: a tenth of a
    /// run's logged steps, at most 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    smooth: Option<u32>,
    /// Names in place of those of the folders: one a run, or with --group-seeds one a group
    #[arg(long, value_delimiter = ',', value_name = "A,B,...")]
    names: Vec<String>,
    /// Make one line and one row of runs whose config.toml differs only in seed (and out, workers): their mean with a band from
    /// least to greatest; in the table mean ± standard deviation
    #[arg(long)]
    group_seeds: bool,
    /// Title of the drawing
    #[arg(long, default_value = "")]
    title: String,
    /// Write all that the runs logged: run, split, step, epoch, seconds, loss, top1, top5, lr
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Print the table as Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print a JSON array in place of the table
    #[arg(long)]
    json: bool,
}

/// What is drawn over.
#[derive(Clone, Debug, PartialEq)]
enum Over {
    Axis(XAxis),
    /// By name, as in config.toml.
    Option(String),
}

impl Over {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        if let Ok(axis) = XAxis::from_str(text, false) {
            return Ok(Self::Axis(axis));
        }
        let name = text.trim_start_matches("--").replace('_', "-");
        let train = TrainOptions::augment_args(clap::Command::new("train"));
        let is_option = |arg: &clap::Arg| arg.get_long() == Some(&name);
        match train.get_arguments().any(is_option) {
            true => Ok(Self::Option(name)),
            false => Err("neither step, epoch or seconds nor an option of `decorr train`".into()),
        }
    }
}

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    if let Some(out) = &args.out {
        expect_ending(out, &["png", "svg"])?;
    }
    if let Some(csv) = &args.csv {
        expect_ending(csv, &["csv"])?;
    }
    let runs: Result<Vec<Run>> = args.runs.iter().map(|path| Run::read(path)).collect();
    let mut runs = runs?;
    let but_for = args.group_seeds.then_some(&SEEDS[..]);
    let groups = groups(&runs, but_for);
    let parts = if args.group_seeds { "groups" } else { "runs" };
    // Over an option, the names are those of the lines.
    let given: &[String] = match args.x {
        Over::Axis(_) => &args.names,
        Over::Option(_) => &[],
    };
    let names = name_all(names(&runs, &groups), given, parts)?;
    if !args.group_seeds {
        for (run, name) in runs.iter_mut().zip(&names) {
            run.name.clone_from(name);
        }
    }
    let smooth = args.smooth.map(|n| n as usize);
    let rows: Vec<Row> = groups
        .iter()
        .zip(&names)
        .map(|(group, name)| {
            let of: Vec<&Run> = group.iter().map(|&i| &runs[i]).collect();
            Row::of(name, &of, smooth)
        })
        .collect();
    differences(&runs).iter().for_each(note);
    if args.json {
        print_json(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
    } else {
        let cells = table::cells(&rows, args.group_seeds);
        let (lines, between) = match args.markdown {
            true => (markdown(&cells), Some("")),
            false => (text(&cells), None),
        };
        let notes = footnotes(&rows, args.group_seeds);
        let lines = lines.iter().map(String::as_str).chain(between);
        lines
            .chain(notes.iter().map(String::as_str))
            .for_each(print);
    }
    if let Some(path) = &args.csv {
        let logs = runs
            .iter()
            .map(|run| (run.name.as_str(), run.records.as_slice()));
        write_atomically(path, log::csv(logs).as_bytes())?;
        wrote(args, path);
    }
    if let Some(out) = &args.out {
        let notices = match &args.x {
            Over::Axis(x) => draw_over(args, *x, out, &runs, &groups, &names)?,
            Over::Option(option) => draw_over_option(args, option, out, &runs)?,
        };
        notices.iter().for_each(note);
        wrote(args, out);
    }
    Ok(())
}

/// Draws curves over steps, epochs or seconds.
fn draw_over(
    args: &CompareArgs,
    x: XAxis,
    out: &Path,
    runs: &[Run],
    groups: &[Vec<usize>],
    names: &[String],
) -> Result<Vec<String>> {
    let lines: Vec<Line<'_>> = groups
        .iter()
        .zip(names)
        .map(|(group, name)| Line {
            name,
            runs: group.iter().map(|&i| runs[i].records.as_slice()).collect(),
            steps_per_epoch: group.iter().find_map(|&i| runs[i].steps_per_epoch),
        })
        .collect();
    if x == XAxis::Epoch {
        for line in lines.iter().filter(|line| line.steps_per_epoch.is_none()) {
            note(format_args!(
                "{}: no epoch is over and there is no run.json, so its points are drawn at whole epochs",
                line.name
            ));
        }
    }
    let options = CurveOptions {
        title: args.title.clone(),
        x,
        y: args.y,
        log: args.log,
        smooth: args.smooth.map(|n| n as usize),
        level: None,
    };
    draw_curves(out, &lines, &options)
}

/// Draws the last tests of runs over an option.
fn draw_over_option(
    args: &CompareArgs,
    option: &str,
    out: &Path,
    runs: &[Run],
) -> Result<Vec<String>> {
    let mut but_for = SEEDS.to_vec();
    but_for.push(option);
    let lines = groups(runs, Some(&but_for));
    let names = name_all(
        names_by_options(runs, &lines, &but_for),
        &args.names,
        "lines",
    )?;
    let y = args.y.unwrap_or(YAxis::Top1);
    let mut points = Vec::new();
    for (line, name) in lines.iter().zip(&names) {
        for run in line.iter().map(|&i| &runs[i]) {
            let value = run.option(option);
            let x = value.as_ref().and_then(|value| value.parse::<f64>().ok());
            let Some(x) = x.filter(|x| x.is_finite()) else {
                return Err(Error::Config(format!(
                    "--x {option}: it is {} in {}, which is no number to draw over",
                    value.unwrap_or("not set".into()),
                    run.name
                )));
            };
            let test = last(&run.records, Split::Test);
            let value = test.map_or(f64::NAN, |test| y.of(test).unwrap_or(f64::NAN));
            points.push((name.clone(), x, vec![value]));
        }
    }
    let lines = Points::grouped(points);
    draw_points(out, &lines, &args.title, [option, y.name()], args.log)
}

/// Standard output is for the table alone where it is meant for another program.
fn wrote(args: &CompareArgs, path: &Path) {
    if !args.json && !args.markdown {
        print(format_args!("wrote {}", path.display()));
    }
}
