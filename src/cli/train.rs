//! `decorr train`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use decorr::gpu::Gpu;
use decorr::graph::op::Variants;
use decorr::ranks::{self, Ranks};
use decorr::train::{
    Event, Outcome, Progress, Saved, Start, TrainConfig, TrainOptions, train_among,
};
use decorr::{Error, Result, data};
use indicatif::{ProgressBar, ProgressStyle};

use super::{AdapterArgs, TuneChoice, fail, note, of_rank, print, set_rank, tune, with_flags};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    options: TrainOptions,
    /// Read options from this file: the config.toml of an earlier run, or one written by hand. The
    /// command line overrides it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overwrite an earlier run in --out
    #[arg(long)]
    force: bool,
    /// Continue the interrupted run in --out, from its last checkpoint and with its options. The command
    /// line overrides them. The result is bit-identical to that of a run without interruption
    #[arg(long, conflicts_with_all = ["force", "config"])]
    resume: bool,
    #[command(flatten)]
    tune: TuneChoice,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: TrainArgs) -> Result<()> {
    let TrainArgs {
        options,
        config,
        force,
        resume,
        tune,
        adapter,
    } = args;
    let options = with_file(options, config.as_deref())?;
    let patience = options
        .rank_timeout
        .or(TrainOptions::defaults().rank_timeout);
    let ranks = ranks::start(patience.unwrap_or(u64::MAX))?;
    set_rank(ranks.rank());
    let outcome = run_among(&ranks, options, [resume, force], &tune, &adapter);
    if let (Err(error), true) = (&outcome, ranks.size() > 1) {
        end_all(ranks, error);
    }
    outcome
}

/// Ends a run of several processes. Returns of one that ends by itself.
fn end_all(ranks: Arc<dyn Ranks>, error: &Error) -> ! {
    // The loss is that of all ranks: all have this error, and the first may still be writing.
    let is_of_all = matches!(error, Error::Diverged(_));
    if ranks.rank() > 0 && !is_of_all {
        // What all have (an option, a missing file) the first says for all, and ends this one.
        std::thread::sleep(Duration::from_secs(1));
    }
    if ranks.rank() == 0 || !is_of_all {
        fail(error);
    }
    if !is_of_all || ranks.gather("how the run ended", Vec::new()).is_err() {
        ranks.abort();
    }
    drop(ranks);
    std::process::exit(1);
}

fn run_among(
    ranks: &Arc<dyn Ranks>,
    options: TrainOptions,
    [resume, force]: [bool; 2],
    tune: &TuneChoice,
    adapter: &AdapterArgs,
) -> Result<()> {
    let (options, start) = match (resume, force) {
        (true, _) => resumed(options)?,
        (false, true) => (options, Start::Over),
        (false, false) => (options, Start::New),
    };
    let (options, measured) = without_measured(options);
    let mut config = TrainConfig::resolve(options)?;
    let gpu = adapter.open_to_run()?;
    choose_kernels(&mut config, measured, &gpu, tune)?;
    let software = gpu.is_software().then(|| gpu.name());
    let whole = data::whole_set(&config.data);
    before(software, &config, whole.as_deref())
        .iter()
        .for_each(note);
    let stop = stop_on_signal();
    let mut display = Display::new(config.log_every, ranks.rank() == 0);
    let tell = |event: Event<'_>| display.show(event);
    let outcome = train_among(ranks, &gpu, &config, start, &stop, tell);
    display.bar.finish_and_clear();
    let latest = || {
        let saved = Saved::latest(&config.out).ok()?;
        Some((saved.step, saved.path))
    };
    after(&config, &outcome, latest).iter().for_each(note);
    report(&config, &outcome?);
    Ok(())
}

/// Kernels that are to be measured are known only once the adapter is; whether they are.
pub(super) fn without_measured(mut options: TrainOptions) -> (TrainOptions, bool) {
    let measured = options.kernels.take_if(|kernels| kernels == "measured");
    (options, measured.is_some())
}

/// Gives `config` the kernels that `gpu` takes, if it does not name others.
pub(super) fn choose_kernels(
    config: &mut TrainConfig,
    measured: bool,
    gpu: &Arc<Gpu>,
    tune: &TuneChoice,
) -> Result<()> {
    let variants = match (measured, config.kernels) {
        (true, _) => Some(Variants::Tiled(tune::measured(gpu)?)),
        (false, None) => tune.variants(gpu)?,
        (false, Some(_)) => None,
    };
    if let Some(variants) = variants {
        config.set_kernels(variants);
    }
    Ok(())
}

/// `options` over those of the file of --config.
fn with_file(options: TrainOptions, file: Option<&Path>) -> Result<TrainOptions> {
    match file {
        Some(_) if options.preset.is_some() => Err(Error::Config(
            "--preset and --config both say where to begin, and a config.toml has a value for \
             everything: give one of them"
                .into(),
        )),
        Some(path) => Ok(options.over(TrainOptions::read(path)?)),
        None => Ok(options),
    }
}

/// `options` over those of the run that is in their folder, and where it goes on.
fn resumed(options: TrainOptions) -> Result<(TrainOptions, Start)> {
    if options.preset.is_some() {
        return Err(Error::Config(
            "--resume takes every option from the run, so that --preset would change nothing: leave it out, and give the \
             options that are to change"
                .into(),
        ));
    }
    if options.init.is_some() {
        let message = "--resume goes on with the weights of the run, so that --init would change nothing: leave it out";
        return Err(Error::Config(message.into()));
    }
    let saved = Saved::latest(&options.out_or_default())?;
    goes_on(&saved).iter().for_each(note);
    Ok((
        options.over(saved.options.clone()),
        Start::Resume(Box::new(saved)),
    ))
}

/// What the user should know of the run before it begins. `software` is the adapter's name, if it is the CPU; `whole` is where
/// all of the data set is, if the run without a folder takes the built-in part of it.
fn before(software: Option<&str>, config: &TrainConfig, whole: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(name) = software
        && config
            .kernels
            .is_some_and(|variants| !variants.are_direct())
    {
        lines.push(format!(
            "this run takes kernels for GPUs, which are slow on {name}; --kernels direct takes others"
        ));
    }
    if config.options.data_dir.is_none()
        && let Some(dir) = whole
    {
        let dir = dir.display();
        lines.push(format!(
            "using the built-in subset of {}; the whole is here too: --data-dir {dir}",
            config.data
        ));
    }
    lines.push(config.summary());
    lines
}

/// Where a run goes on, after what could not be read.
fn goes_on(saved: &Saved) -> Vec<String> {
    let damaged = saved.damaged.iter();
    let from = format!(
        "resuming after step {} from {}",
        saved.step,
        saved.path.display()
    );
    let lines = damaged.map(|why| format!("passed over: {why}"));
    lines.chain([from]).collect()
}

/// What is saved of a run that ended early, and how it goes on; `saved` gives its last checkpoint.
fn after(
    config: &TrainConfig,
    outcome: &Result<Outcome>,
    saved: impl FnOnce() -> Option<(u64, PathBuf)>,
) -> Option<String> {
    let out = config.out.display();
    match outcome {
        Err(Error::Io { .. } | Error::OutOfMemory(_) | Error::DeviceLost(_)) => {
            let (step, path) = saved()?;
            Some(format!(
                "step {step} is saved whole in {}; `decorr train --resume --out {out}` goes on from there",
                path.display()
            ))
        }
        Ok(outcome) if outcome.interrupted => Some(format!(
            "stopped after step {}; all is saved; `decorr train --resume --out {out}` goes on",
            outcome.steps
        )),
        _ => None,
    }
}

/// How often an image was left out, if one was.
fn skipped(of: &Outcome) -> Option<String> {
    let count = of.skipped;
    (count > 0).then(|| format!("skipped {count} times an image that could not be read"))
}

fn report(config: &TrainConfig, outcome: &Outcome) {
    skipped(outcome).iter().for_each(note);
    print(sum(outcome));
    wrote(config).iter().for_each(print);
}

/// What lies in the folder of a run now.
fn wrote(config: &TrainConfig) -> Vec<String> {
    let out = config.out.display();
    let files = format!(
        "wrote {out}/model.safetensors, metrics.jsonl, config.toml, run.json and curves.png"
    );
    let events = format!("and event files: tensorboard --logdir {out}");
    let events = config.tensorboard.then_some(events);
    [files].into_iter().chain(events).collect()
}

fn sum(of: &Outcome) -> String {
    let mut text = format!(
        "{} steps in {:.1} s ({:.1} ms a step): train loss {:.4}, test loss {:.4}, test top1 {:.4}",
        of.steps,
        of.seconds,
        1e3 * of.seconds / of.steps.max(1) as f64,
        of.train_loss,
        of.test.loss,
        of.test.top1
    );
    if let Some(top5) = of.test.top5 {
        text += &format!(", test top5 {top5:.4}");
    }
    text
}

/// What the terminal shows of a run: a bar, and lines above it. Without a terminal the bar is silent, and logged steps are
/// lines.
struct Display {
    bar: ProgressBar,
    log_every: u64,
    /// Of several processes, who is the slowest.
    slowest: String,
}

impl Display {
    /// Shows nothing unless `is_shown`.
    fn new(log_every: u64, is_shown: bool) -> Self {
        let bar = match is_shown {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        // The template is a constant of this file and valid.
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            log_every,
            slowest: String::new(),
        }
    }

    fn show(&mut self, event: Event<'_>) {
        let text = line(&event);
        match event {
            Event::Slowest(..) => self.slowest = text,
            Event::Step(progress) if !self.slowest.is_empty() => {
                self.show_step(&progress, format!("{text}, {}", self.slowest));
            }
            Event::Begin(_) => self.bar.set_message(text),
            Event::Step(progress) => self.show_step(&progress, text),
            Event::Skipped(_) if self.bar.is_hidden() => of_rank(text),
            Event::Memory(..) | Event::Notice(_) | Event::Skipped(_) | Event::Test(..) => {
                self.say(&text);
            }
        }
    }

    fn show_step(&self, p: &Progress, message: String) {
        self.bar.set_length(p.total_steps);
        self.bar.set_position(p.step);
        if self.bar.is_hidden() && is_logged(p, self.log_every) {
            note(format_args!("{}/{} {message}", p.step, p.total_steps));
        }
        self.bar.set_message(message);
    }

    /// A line above the bar, or where there is no terminal, a line.
    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            note(text);
        } else {
            self.bar.println(with_flags(text));
        }
    }
}

/// What is said of an event.
fn line(event: &Event<'_>) -> String {
    match event {
        Event::Begin(what) => format!("{what} ..."),
        Event::Memory(planned, used) => {
            let used = used.map(|b| format!(" ({} MiB reported by the adapter)", b >> 20));
            let (planned, used) = (planned >> 20, used.unwrap_or_default());
            format!("memory: {planned} MiB planned{used}")
        }
        Event::Notice(text) | Event::Skipped(text) => text.to_string(),
        Event::Step(p) => format!(
            "epoch {} loss {:.4} top1 {:.3} {:.0} images/s {} left",
            p.epoch,
            p.loss,
            p.top1,
            p.images_per_second,
            duration(p.seconds_left)
        ),
        Event::Slowest(rank, adapter) => format!("slowest: rank {rank} ({adapter})"),
        Event::Test(step, test) => format!("step {step}: test {test}"),
    }
}

/// Whether a step has a line of its own where there is no terminal.
fn is_logged(p: &Progress, log_every: u64) -> bool {
    p.step == 1 || p.step.is_multiple_of(log_every) || p.step == p.total_steps
}

/// True after the first Ctrl-C, SIGTERM or SIGHUP (batch systems, `docker stop`, a closed terminal); the second one ends
/// the program at once.
pub(super) fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note(format_args!(
            "stopping after this step; Ctrl-C again to end at once"
        ));
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        note(format_args!("Ctrl-C and signals will not save: {error}"));
    }
    stop
}

pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e7) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use decorr::train::Evaluation;

    use super::*;

    const TEST: Evaluation = Evaluation {
        loss: 1.25,
        top1: 0.5,
        top5: None,
        images: 8,
    };

    fn outcome() -> Outcome {
        Outcome {
            steps: 40,
            train_loss: 0.75,
            test: TEST,
            seconds: 5.0,
            interrupted: false,
            skipped: 0,
            checkpoint: PathBuf::new(),
        }
    }

    #[test]
    fn what_is_said_before_a_run_is_of_its_kernels_and_its_data() {
        let line =
            |adapter: Option<&str>, kernels: Option<&str>, dir: Option<&str>, whole: bool| {
                let options = TrainOptions {
                    kernels: kernels.map(str::to_string),
                    data_dir: dir.map(PathBuf::from),
                    ..TrainOptions::default()
                };
                let config = TrainConfig::resolve(options).unwrap();
                let lines = before(adapter, &config, whole.then_some(Path::new("all")));
                assert_eq!(lines.last(), Some(&config.summary()));
                lines[..lines.len() - 1].join("|")
            };
        let slow =
            "this run takes kernels for GPUs, which are slow on cpu; --kernels direct takes others";
        let part =
            "using the built-in subset of fashion-mnist; the whole is here too: --data-dir all";
        let both = format!("{slow}|{part}");
        for (adapter, kernels, dir, whole, wanted) in [
            (Some("cpu"), Some("tiled"), None, true, both.as_str()),
            (Some("cpu"), Some("tiled"), None, false, slow),
            (Some("cpu"), Some("direct"), None, true, part),
            (Some("cpu"), None, Some("here"), true, ""),
            (None, Some("tiled"), Some("here"), true, ""),
            (None, Some("tiled"), None, true, part),
        ] {
            assert_eq!(line(adapter, kernels, dir, whole), wanted);
        }
    }

    #[test]
    fn what_a_resumed_run_passes_over_is_said() {
        let mut saved = Saved {
            path: "a/checkpoints/step-7".into(),
            step: 7,
            seconds: 1.5,
            options: TrainOptions::default(),
            tensors: Default::default(),
            class_names: None,
            damaged: Vec::new(),
        };
        let from = "resuming after step 7 from a/checkpoints/step-7";
        assert_eq!(goes_on(&saved), [from]);
        saved.damaged = vec!["step-9 is cut".into(), "step-8 is empty".into()];
        let passed = [
            "passed over: step-9 is cut",
            "passed over: step-8 is empty",
            from,
        ];
        assert_eq!(goes_on(&saved), passed);
    }

    #[test]
    fn files_of_events_are_named_where_there_are_any() {
        let of = |tensorboard| {
            let options = TrainOptions {
                out: Some("there".into()),
                tensorboard: Some(tensorboard),
                ..TrainOptions::default()
            };
            wrote(&TrainConfig::resolve(options).unwrap())
        };
        let files =
            "wrote there/model.safetensors, metrics.jsonl, config.toml, run.json and curves.png";
        assert_eq!(of(false), [files]);
        let events = "and event files: tensorboard --logdir there";
        assert_eq!(of(true), [files, events]);
    }

    #[test]
    fn what_is_said_after_a_run_is_how_it_goes_on() {
        let options = TrainOptions {
            out: Some("there".into()),
            ..TrainOptions::default()
        };
        let config = TrainConfig::resolve(options).unwrap();
        let stopped = Outcome {
            interrupted: true,
            ..outcome()
        };
        let broken = || std::io::Error::other("broken");
        let goes_on = "`decorr train --resume --out there` goes on";
        let kept = format!("step 7 is saved whole in c/step-7; {goes_on} from there");
        for (outcome, wanted) in [
            (Ok(outcome()), None),
            (
                Ok(stopped),
                Some(format!("stopped after step 40; all is saved; {goes_on}")),
            ),
            (Err(Error::io("a", broken())), Some(kept.clone())),
            (Err(Error::OutOfMemory("all".into())), Some(kept.clone())),
            (Err(Error::DeviceLost("gone".into())), Some(kept)),
            (Err(Error::Diverged("nan".into())), None),
            (Err(Error::Config("no".into())), None),
        ] {
            let saved = || Some((7, PathBuf::from("c/step-7")));
            assert_eq!(after(&config, &outcome, saved), wanted);
            if outcome.is_err() {
                assert_eq!(after(&config, &outcome, || None), None);
            }
        }
    }

    #[test]
    fn images_that_were_left_out_are_counted_from_the_first_on() {
        let said = |skipped| {
            super::skipped(&Outcome {
                skipped,
                ..outcome()
            })
        };
        let wanted = |n: u64| Some(format!("skipped {n} times an image that could not be read"));
        assert_eq!([said(0), said(1), said(2)], [None, wanted(1), wanted(2)]);
    }

    #[test]
    fn each_number_of_a_run_stands_behind_its_name() {
        let (test, outcome) = (TEST, outcome());
        let wanted = "40 steps in 5.0 s (125.0 ms a step): train loss 0.7500, test loss 1.2500, test top1 0.5000";
        assert_eq!(sum(&outcome), wanted);
        let mut of_many = outcome;
        of_many.test.top5 = Some(0.875);
        assert_eq!(sum(&of_many), format!("{wanted}, test top5 0.8750"));
        let mut progress = Progress {
            step: 1,
            total_steps: 23,
            epoch: 6,
            loss: 2.5,
            top1: 0.125,
            images_per_second: 81.4,
            seconds_left: 61.0,
        };
        for (event, wanted) in [
            (Event::Begin("saving"), "saving ..."),
            (Event::Memory(3 << 20, None), "memory: 3 MiB planned"),
            (
                Event::Memory(3 << 20, Some(5 << 20)),
                "memory: 3 MiB planned (5 MiB reported by the adapter)",
            ),
            (Event::Notice("as it is"), "as it is"),
            (
                Event::Step(progress),
                "epoch 6 loss 2.5000 top1 0.125 81 images/s 1:01 min left",
            ),
            (
                Event::Test(9, test),
                "step 9: test loss 1.2500, top1 0.5000",
            ),
        ] {
            assert_eq!(line(&event), wanted);
        }
        let logged = (1..=23).filter(|&step| {
            progress.step = step;
            is_logged(&progress, 10)
        });
        assert_eq!(logged.collect::<Vec<_>>(), [1, 10, 20, 23]);
    }

    #[test]
    fn durations_on_either_side_of_their_units() {
        for (seconds, text) in [
            (0.9, "0 s"),
            (59.9, "59 s"),
            (60.0, "1:00 min"),
            (3599.0, "59:59 min"),
            (3600.0, "1:00 h"),
            (3725.0, "1:02 h"),
            (90_061.0, "25:01 h"),
            (f64::NAN, "0 s"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
