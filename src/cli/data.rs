//! `decorr data`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use decorr::data::{self, BASE_VARIABLE, Findings, SETS};
use decorr::train::{TrainConfig, TrainOptions, data_name_parser};
use decorr::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::print;

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// List the data sets.
    List,
    /// Download a data set from its official address, verify and unpack it. A cut download
    /// continues where it ended.
    Fetch(FetchArgs),
    /// Check the data set in a folder: counts and labels; decodes every picture.
    Check(CheckArgs),
    /// Measure how many training images a second are loaded, with the options of `train`.
    Bench(Box<BenchArgs>),
}

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// Data set
    #[arg(value_parser = data_name_parser())]
    name: String,
    /// Folder in which a folder of the set's name is made
    #[arg(long, default_value = data::DIR)]
    dir: PathBuf,
    /// Address of the files, in place of the official one
    #[arg(long, hide = true, env = BASE_VARIABLE)]
    base: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Folder of the set's files
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    options: TrainOptions,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

pub(super) fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::List => list(),
        DataCommand::Fetch(args) => return fetch(&args),
        DataCommand::Check(args) => return check(&args.dir),
        DataCommand::Bench(args) => return bench(*args),
    }
    Ok(())
}

fn list() {
    for set in SETS {
        let size = match set.counts {
            Some([train, test]) => format!("{train} + {test}"),
            None => String::new(),
        };
        print(format_args!("{:<14} {size:>14}  {}", set.name, set.about));
    }
}

fn fetch(args: &FetchArgs) -> Result<()> {
    let set = data::find_set(&args.name)?;
    let dir = args.dir.join(set.name);
    let bar = bar("{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
    data::fetch(set, &dir, args.base.as_deref(), |file, have, total| {
        bar.set_message(file.to_string());
        bar.set_length(total.unwrap_or(have));
        bar.set_position(have);
    })?;
    bar.finish_and_clear();
    check(&dir)?;
    print(format_args!(
        "train with --data {} --data-dir {}",
        set.name,
        dir.display()
    ));
    Ok(())
}

fn check(dir: &Path) -> Result<()> {
    let bar = bar("{bar:24} {pos}/{len} pictures decoded, {eta} left");
    let report = data::check(dir, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    lines(&report).iter().for_each(print);
    match report.problems.len() {
        0 => Ok(()),
        count => {
            let message = format!("{count} files cannot be used; --skip-bad trains without them");
            Err(Error::data(dir, message))
        }
    }
}

fn lines(report: &Findings) -> Vec<String> {
    let ([train, test], [least, most]) = (report.counts, report.per_class);
    let mut lines = vec![format!(
        "{}: {train} training and {test} test images of {} classes, {least} to {most} of each in \
         training",
        report.name, report.classes
    )];
    lines.extend(report.remarks.iter().map(|text| format!("note: {text}")));
    lines.extend(report.problems.iter().map(|text| format!("bad: {text}")));
    lines
}

fn bench(args: BenchArgs) -> Result<()> {
    let config = TrainConfig::resolve(args.options)?;
    let set = config.open_data()?;
    let mut loader = set.train_loader(config.batch_size, config.seed, 0)?;
    // Threads start and files come into the cache.
    if let Some(batch) = loader.next_batch()? {
        loader.recycle(batch);
    }
    let (start, mut images) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(args.seconds.into()) {
        let Some(batch) = loader.next_batch()? else {
            break;
        };
        images += batch.len;
        loader.recycle(batch);
    }
    let seconds = start.elapsed().as_secs_f64();
    print(format_args!(
        "{:.0} images/s: {images} images in {seconds:.1} s, batches of {}, {:?}",
        images as f64 / seconds,
        config.batch_size,
        set.augment
    ));
    Ok(())
}

/// Silent without a terminal.
fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The templates are constants of this file and valid.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_found_is_said_with_its_numbers() {
        let found = Findings {
            name: "folder",
            counts: [900, 50],
            classes: 7,
            per_class: [3, 400],
            remarks: vec!["odd".into()],
            problems: vec!["a.png: broken".into()],
        };
        let wanted = [
            "folder: 900 training and 50 test images of 7 classes, 3 to 400 of each in training",
            "note: odd",
            "bad: a.png: broken",
        ];
        assert_eq!(lines(&found), wanted);
    }
}
