//! `decorr compare`.

mod log;
pub(super) mod runs;
pub(super) mod table;

use std::path::PathBuf;

use clap::Args;
use decorr::Result;
use decorr::files::{expect_ending, write_atomically};
use decorr::train::{CurveOptions, Line, XAxis, YAxis, draw_curves};

use super::{note, print, print_json};
use runs::{Run, differences, groups, name_all, names};
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
    /// What the curves are drawn over
    #[arg(long, value_enum, default_value_t)]
    x: XAxis,
    /// What the curves are of [default: loss and top1, side by side]
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

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    if let Some(out) = &args.out {
        expect_ending(out, &["png", "svg"])?;
    }
    if let Some(csv) = &args.csv {
        expect_ending(csv, &["csv"])?;
    }
    let runs: Result<Vec<Run>> = args.runs.iter().map(|path| Run::read(path)).collect();
    let mut runs = runs?;
    let groups = groups(&runs, args.group_seeds);
    let parts = if args.group_seeds { "groups" } else { "runs" };
    let names = name_all(names(&runs, &groups), &args.names, parts)?;
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
        let lines: Vec<Line<'_>> = groups
            .iter()
            .zip(&names)
            .map(|(group, name)| Line {
                name,
                runs: group.iter().map(|&i| runs[i].records.as_slice()).collect(),
                steps_per_epoch: group.iter().find_map(|&i| runs[i].steps_per_epoch),
            })
            .collect();
        if args.x == XAxis::Epoch {
            for line in lines.iter().filter(|line| line.steps_per_epoch.is_none()) {
                note(format_args!(
                    "{}: no epoch is over and there is no run.json, so its points are drawn at whole epochs",
                    line.name
                ));
            }
        }
        let options = CurveOptions {
            title: args.title.clone(),
            x: args.x,
            y: args.y,
            log: args.log,
            smooth,
            level: None,
        };
        draw_curves(out, &lines, &options)?.iter().for_each(note);
        wrote(args, out);
    }
    Ok(())
}

/// Standard output is for the table alone where it is meant for another program.
fn wrote(args: &CompareArgs, path: &std::path::Path) {
    if !args.json && !args.markdown {
        print(format_args!("wrote {}", path.display()));
    }
}
