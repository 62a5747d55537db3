//! `decorr train`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use decorr::graph::op::Variants;
use decorr::train::{Event, Saved, Start, TrainConfig, TrainOptions, train};
use decorr::{Error, Result, data};
use indicatif::{ProgressBar, ProgressStyle};

use super::{AdapterArgs, TuneChoice, note, print, tune};

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
    let mut options = args.options;
    if let Some(path) = &args.config {
        if options.preset.is_some() {
            return Err(Error::Config(
                "--preset and --config both say where to begin, and a config.toml has a value for \
                 everything: give one of them"
                    .into(),
            ));
        }
        options = options.over(TrainOptions::read(path)?);
    }
    let start = if args.resume {
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
        for damaged in &saved.damaged {
            note(format_args!("passed over: {damaged}"));
        }
        note(format_args!(
            "resuming after step {} from {}",
            saved.step,
            saved.path.display()
        ));
        options = options.over(saved.options.clone());
        Start::Resume(Box::new(saved))
    } else if args.force {
        Start::Over
    } else {
        Start::New
    };
    // These are known only once the adapter is.
    let measured = options.kernels.take_if(|kernels| kernels == "measured");
    let mut config = TrainConfig::resolve(options)?;
    let gpu = args.adapter.open_to_run()?;
    if measured.is_some() {
        config.set_kernels(Variants::Tiled(tune::measured(&gpu)?));
    } else if config.kernels.is_none()
        && let Some(variants) = args.tune.variants(&gpu)?
    {
        config.set_kernels(variants);
    }
    if gpu.is_software()
        && config
            .kernels
            .is_some_and(|variants| !variants.are_direct())
    {
        note(format_args!(
            "this run takes kernels for GPUs, which are slow on {}; --kernels direct takes others",
            gpu.name()
        ));
    }
    let stop = stop_on_signal();
    if config.options.data_dir.is_none()
        && let Some(dir) = data::whole_set(&config.data)
    {
        let dir = dir.display();
        note(format_args!(
            "using the built-in subset of {}; the whole is here too: --data-dir {dir}",
            config.data
        ));
    }

    note(config.summary());
    let bar = ProgressBar::new(0);
    // The template is a constant of this file and valid.
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    // Without a terminal the bar is silent, and logged steps are lines.
    let lines = bar.is_hidden();
    let log_every = config.log_every;
    let summary = train(&gpu, &config, start, &stop, |event| match event {
        Event::Begin(what) => bar.set_message(format!("{what} ...")),
        Event::Memory(planned, used) => {
            let used = used.map(|b| format!(" ({} MiB reported by the adapter)", b >> 20));
            let planned = planned >> 20;
            let used = used.unwrap_or_default();
            say(&bar, &format!("memory: {planned} MiB planned{used}"));
        }
        Event::Notice(text) => say(&bar, text),
        Event::Step(p) => {
            bar.set_length(p.total_steps);
            bar.set_position(p.step);
            let message = format!(
                "epoch {} loss {:.4} top1 {:.3} {:.0} images/s {} left",
                p.epoch,
                p.loss,
                p.top1,
                p.images_per_second,
                duration(p.seconds_left)
            );
            if lines && (p.step == 1 || p.step.is_multiple_of(log_every) || p.step == p.total_steps)
            {
                note(format_args!("{}/{} {message}", p.step, p.total_steps));
            }
            bar.set_message(message);
        }
        Event::Test(step, test) => {
            let text = format!(
                "step {step}: test loss {:.4}, top1 {:.4}",
                test.loss, test.top1
            );
            say(&bar, &text);
        }
    });
    bar.finish_and_clear();
    let out = config.out.display();
    if let Err(Error::Io { .. } | Error::OutOfMemory(_) | Error::DeviceLost(_)) = &summary
        && let Ok(saved) = Saved::latest(&config.out)
    {
        note(format_args!(
            "step {} is saved whole in {}; `decorr train --resume --out {out}` goes on from there",
            saved.step,
            saved.path.display()
        ));
    }
    let summary = summary?;
    if summary.interrupted {
        note(format_args!(
            "stopped after step {}; all is saved; `decorr train --resume --out {out}` goes on",
            summary.steps
        ));
    }
    if summary.skipped > 0 {
        note(format_args!(
            "skipped {} times an image that could not be read",
            summary.skipped
        ));
    }
    print(format_args!(
        "{} steps in {:.1} s ({:.1} ms a step): train loss {:.4}, test loss {:.4}, test top1 {:.4}",
        summary.steps,
        summary.seconds,
        1e3 * summary.seconds / summary.steps.max(1) as f64,
        summary.train_loss,
        summary.test.loss,
        summary.test.top1
    ));
    print(format_args!(
        "wrote {out}/model.safetensors, metrics.jsonl, config.toml and curves.png"
    ));
    Ok(())
}

/// A line above the bar, or where there is no terminal, a line.
fn say(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        note(text);
    } else {
        bar.println(text);
    }
}

/// True after the first Ctrl-C, SIGTERM or SIGHUP (batch systems, `docker stop`, a closed terminal); the second one ends
/// the program at once.
fn stop_on_signal() -> Arc<AtomicBool> {
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

fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e7) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

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
