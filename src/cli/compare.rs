//! `decorr compare`.

use std::path::{Path, PathBuf};

use clap::Args;
use decorr::files::expect_ending;
use decorr::train::{Over, Record, Split, draw_curves, read_metrics, running_mean};
use decorr::{Error, Result};
use serde::Serialize;

use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Folders that `decorr train` wrote (its --out), finished or running
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Draw their curves: lines for the training batches (running mean), dots for the tests
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// What the curves are drawn over
    #[arg(long, value_enum, default_value_t = Over::Steps)]
    over: Over,
    /// Title of the drawing
    #[arg(long, default_value = "")]
    title: String,
    /// Print a JSON array in place of the table
    #[arg(long)]
    json: bool,
}

/// Where a run is.
#[derive(Serialize)]
struct Row {
    name: String,
    steps: u64,
    /// Running mean at its end, as drawn.
    train_loss: Option<f64>,
    test_loss: Option<f64>,
    test_top1: Option<f64>,
    ms_per_step: Option<f64>,
}

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let mut runs = Vec::new();
    if let Some(out) = &args.out {
        expect_ending(out, &["png"])?;
    }
    for path in &args.runs {
        runs.push((name(path)?, read_metrics(&path.join("metrics.jsonl"))?));
    }
    let summaries: Vec<Row> = runs
        .iter()
        .map(|(name, records)| summary(name, records))
        .collect();
    if args.json {
        print_json(&summaries)?;
    } else {
        table(&summaries).iter().for_each(print);
    }
    if let Some(out) = &args.out {
        let borrowed: Vec<(&str, &[Record])> = runs
            .iter()
            .map(|(name, records)| (name.as_str(), records.as_slice()))
            .collect();
        draw_curves(out, &args.title, &borrowed, args.over)?;
        if !args.json {
            print(format_args!("wrote {}", out.display()));
        }
    }
    Ok(())
}

/// The folder's own name, for `.` too.
fn name(path: &Path) -> Result<String> {
    let whole = path.canonicalize().map_err(|e| Error::io(path, e))?;
    let last = whole.file_name().unwrap_or(whole.as_os_str());
    Ok(last.to_string_lossy().into_owned())
}

fn summary(name: &str, records: &[Record]) -> Row {
    let train: Vec<&Record> = records.iter().filter(|r| r.split == Split::Train).collect();
    let test = records.iter().rfind(|r| r.split == Split::Test);
    let losses: Vec<(f64, f64)> = train
        .iter()
        .filter_map(|r| Some((r.step as f64, r.loss?)))
        .collect();
    let end = train.last();
    Row {
        name: name.into(),
        steps: end.map_or(0, |r| r.step),
        train_loss: running_mean(&losses).last().map(|p| p.1),
        test_loss: test.and_then(|r| r.loss),
        test_top1: test.and_then(|r| r.top1),
        ms_per_step: end
            .filter(|r| r.step > 0)
            .map(|r| 1000.0 * r.seconds / r.step as f64),
    }
}

/// A heading, and a line a run.
fn table(summaries: &[Row]) -> Vec<String> {
    let width = summaries.iter().map(|s| s.name.len()).fold(3, usize::max);
    let mut lines = vec![format!(
        "{:width$} {:>7} {:>11} {:>10} {:>10} {:>10}",
        "run", "steps", "train loss", "test loss", "test top1", "ms a step"
    )];
    let number = |value: Option<f64>, decimals: usize| {
        value.map_or("-".into(), |value| format!("{value:.decimals$}"))
    };
    for s in summaries {
        lines.push(format!(
            "{:width$} {:>7} {:>11} {:>10} {:>10} {:>10}",
            s.name,
            s.steps,
            number(s.train_loss, 4),
            number(s.test_loss, 4),
            number(s.test_top1, 4),
            number(s.ms_per_step, 1)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_summed_up_by_its_last_step_and_its_last_test() {
        let record = |split, step, loss, top1, seconds| Record {
            split,
            step,
            epoch: 0,
            loss: Some(loss),
            top1: Some(top1),
            top5: None,
            lr: None,
            seconds,
        };
        let records = [
            record(Split::Train, 1, 4.0, 0.1, 1.0),
            record(Split::Test, 1, 3.0, 0.2, 1.0),
            record(Split::Train, 10, 2.0, 0.3, 5.0),
            record(Split::Test, 10, 1.0, 0.4, 5.0),
        ];
        let summary = summary("a", &records);
        assert_eq!(summary.steps, 10);
        assert_eq!(
            (summary.test_loss, summary.test_top1),
            (Some(1.0), Some(0.4))
        );
        assert_eq!(summary.ms_per_step, Some(500.0));
        assert_eq!(summary.train_loss, Some(2.0));
        let new = super::summary("deconv", &[]);
        let wanted = [
            "run      steps  train loss  test loss  test top1  ms a step",
            "a           10      2.0000     1.0000     0.4000      500.0",
            "deconv       0           -          -          -          -",
        ];
        assert_eq!(table(&[summary, new]), wanted);
        // Of many steps, the mean over the last tenth.
        let many: Vec<Record> = (1..=40)
            .map(|i| record(Split::Train, i, (i % 4) as f64, 0.5, i as f64))
            .collect();
        assert_eq!(super::summary("b", &many).train_loss, Some(1.5));
    }
}
