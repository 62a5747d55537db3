//! `decorr sweep`.

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use decorr::files::{make_folder, write_atomically};
use decorr::train::{
    Ended, Planned, Record, Split, TrainOptions, Vary, combinations, read_metrics, run_all,
};
use decorr::{Error, Result};

use super::compare::runs::last;
use super::csv::{or_empty, quoted};
use super::sums::Sums;
use super::train::{choose_kernels, stop_on_signal, without_measured};
use super::{AdapterArgs, TuneChoice, note, print};

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// An option of `decorr train` and the values that it takes in turn. Repeated, every combination is run
    #[arg(long, required = true, value_name = "NAME=VALUE,VALUE,...")]
    vary: Vec<Vary>,
    /// Folder for the runs, one folder each, and for sweep.csv
    #[arg(long, value_name = "DIR", default_value = "runs/sweep")]
    out: PathBuf,
    #[command(flatten)]
    tune: TuneChoice,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Options of `decorr train` that all runs have
    #[arg(last = true, value_name = "TRAIN OPTIONS", allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(super) const EXAMPLES: &str = "\
Three seeds of two norms, and their curves:

    decorr sweep --vary norm=batch,deconv --vary seed=1,2,3 --out runs/norms -- --model vgg11 --data cifar10
    decorr compare runs/norms/*/ --out norms.png

Runs that are finished are not run again, and one that was interrupted goes on: give the same command again.";

pub(super) fn run(args: &SweepArgs) -> Result<()> {
    let base = train_options(&args.options)?;
    if base.out.is_some() {
        let message = "the runs' folders are in the --out before `--`: leave out the one after it";
        return Err(Error::Config(message.into()));
    }
    let (base, measured) = without_measured(base);
    let mut runs = combinations(&base, &args.vary, &args.out)?;
    let gpu = args.adapter.open_to_run()?;
    for run in &mut runs {
        choose_kernels(&mut run.config, measured, &gpu, &args.tune)?;
    }
    make_folder(&args.out)?;
    let stop = stop_on_signal();
    let mut progress = Sums::new(runs.len());
    let all = run_all(&gpu, &runs, &stop, |i, event| {
        progress.after(i);
        let lines = progress.lines(&runs[i].name, &event);
        lines.iter().for_each(note);
    })?;
    let mut rows = Vec::new();
    for (run, ended) in runs.iter().zip(&all) {
        let log = run.config.out.join("metrics.jsonl");
        // A run that did not begin has none.
        let records = if log.exists() {
            read_metrics(&log)?
        } else {
            Vec::new()
        };
        print(said(&run.name, ended, &records));
        rows.push((run, ended, records));
    }
    let file = args.out.join("sweep.csv");
    write_atomically(&file, csv(&args.vary, &rows).as_bytes())?;
    print(format_args!("wrote {}", file.display()));
    let open = all.iter().filter(|e| matches!(e, Ended::Open)).count();
    if open > 0 {
        note(format_args!(
            "{open} of {} runs are not finished: give the same command again to go on",
            all.len()
        ));
    }
    match all.iter().filter(|e| matches!(e, Ended::Failed(_))).count() {
        0 => Ok(()),
        failed => Err(Error::Config(format!(
            "{failed} of {} runs could not run, for the reasons above",
            all.len()
        ))),
    }
}

/// What stands after `--`.
pub(super) fn train_options(args: &[String]) -> Result<TrainOptions> {
    let command = TrainOptions::augment_args(Command::new("train").no_binary_name(true));
    let command = command.disable_help_flag(true);
    let found = command.try_get_matches_from(args);
    let found = found.and_then(|matches| TrainOptions::from_arg_matches(&matches));
    found.map_err(|e| Error::Config(format!("after `--`: {}", e.to_string().trim())))
}

/// A line for a run.
fn said(name: &str, ended: &Ended, records: &[Record]) -> String {
    match ended {
        Ended::Done(info) => {
            let test = last(records, Split::Test);
            let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
            let (loss, top1) = (test.and_then(|r| r.loss), test.and_then(|r| r.top1));
            format!(
                "{name}: {} steps, test loss {}, top1 {}",
                info.steps,
                number(loss),
                number(top1)
            )
        }
        Ended::Diverged(why) => format!("{name}: diverged: {why}"),
        Ended::Failed(why) => format!("{name}: could not run: {why}"),
        Ended::Open => format!("{name}: not finished"),
    }
}

/// sweep.csv: a row for each run.
fn csv(vary: &[Vary], rows: &[(&Planned, &Ended, Vec<Record>)]) -> String {
    let names = vary.iter().map(|v| v.name.as_str());
    let columns = ["run"].into_iter().chain(names).chain([
        "state",
        "steps",
        "train_loss",
        "test_loss",
        "test_top1",
        "steps_per_second",
    ]);
    let mut text = columns.collect::<Vec<_>>().join(",") + "\n";
    for (run, ended, records) in rows {
        let (state, info) = match ended {
            Ended::Done(info) => ("done", Some(info)),
            Ended::Diverged(_) => ("diverged", None),
            Ended::Failed(_) => ("failed", None),
            Ended::Open => ("open", None),
        };
        let (train, test) = (last(records, Split::Train), last(records, Split::Test));
        let steps = train.map_or(0, |r| r.step);
        let mut cells = vec![quoted(&run.name)];
        cells.extend(run.values.iter().map(|value| quoted(value)));
        cells.extend([state.into(), steps.to_string()]);
        cells.push(or_empty(train.and_then(|r| r.loss)));
        cells.push(or_empty(test.and_then(|r| r.loss)));
        cells.push(or_empty(test.and_then(|r| r.top1)));
        cells.push(or_empty(info.and_then(|i| i.steps_per_second)));
        text += &(cells.join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_after_the_dashes_are_those_of_train() {
        let args = |texts: &[&str]| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        let found = train_options(&args(&["--lr", "0.5", "--nesterov"])).unwrap();
        assert_eq!((found.lr, found.nesterov), (Some(0.5), Some(true)));
        let error = train_options(&args(&["--lrr", "0.5"])).unwrap_err();
        assert!(error.to_string().contains("'--lrr'"), "{error}");
    }

    #[test]
    fn each_number_stands_in_its_column() {
        let record = |split, step, loss, top1| Record {
            split,
            step,
            epoch: 0,
            loss: Some(loss),
            top1: Some(top1),
            top5: None,
            lr: None,
            seconds: 0.0,
        };
        let records = vec![
            record(Split::Train, 7, 0.5, 0.25),
            record(Split::Test, 8, 1.5, 0.75),
        ];
        let vary: Vec<Vary> = vec!["lr=0.1".parse().unwrap(), "norm=none".parse().unwrap()];
        let base = TrainOptions::default();
        let runs = combinations(&base, &vary, std::path::Path::new("there")).unwrap();
        let diverged = Ended::Diverged("NaN".into());
        let text = csv(&vary, &[(&runs[0], &diverged, records.clone())]);
        let wanted = "run,lr,norm,state,steps,train_loss,test_loss,test_top1,steps_per_second\n\
                      lr-0.1_norm-none,0.1,none,diverged,7,0.5,1.5,0.75,\n";
        assert_eq!(text, wanted);
        assert_eq!(said("a", &diverged, &records), "a: diverged: NaN");
        assert_eq!(said("a", &Ended::Open, &records), "a: not finished");
    }
}
