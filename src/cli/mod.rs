//! The command line.

mod bench;
mod checkpoint;
mod compare;
mod csv;
mod data;
mod describe;
mod devices;
mod eval;
mod export;
mod flags;
mod models;
mod paper;
mod predict;
mod profile;
mod step;
mod sums;
mod sweep;
mod times;
mod train;
mod tune;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, CommandFactory, Parser, Subcommand};
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::graph::op::Variants;
use decorr::graph::tiles::Tiles;
use decorr::self_check::self_check;
use decorr::{Error, Result};
use serde::Serialize;

/// Trains neural networks with network deconvolution on any GPU, through Vulkan, Metal or DX12.
///
/// Begin with `decorr train`: it trains a small convolutional network on built-in images and
/// writes checkpoint, metrics and curves to runs/run.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network and write checkpoint, metrics and curves.
    Train(Box<train::TrainArgs>),
    /// Train several networks: every combination of values of some options.
    ///
    /// Each run is one of `decorr train` with a folder of its own. Finished runs are not run again, interrupted ones go on.
    #[command(after_long_help = sweep::EXAMPLES)]
    Sweep(sweep::SweepArgs),
    /// Run the paper's experiments again, and write a report.
    ///
    /// The report is one page, with the paper's numbers beside the measured ones, curves, settings and what differs from the
    /// paper. Beside it are drawings (SVG, PNG), tables (Markdown, CSV) and all numbers (JSON).
    #[command(after_long_help = paper::EXAMPLES)]
    Paper(Box<paper::PaperArgs>),
    /// Print loss and accuracy of a checkpoint on test images.
    Eval(Box<eval::EvalArgs>),
    /// Say what is on pictures: the most probable classes of each.
    ///
    /// Prints a line a picture, as `cat.png: tabby .83, tiger cat .12`. Pictures are brought to the size of the network as the
    /// test images of its training were: the middle of each is taken.
    Predict(Box<predict::PredictArgs>),
    /// Write the network of a run for programs that know plain layers only.
    ///
    /// The result is the same network without deconvolution, which gives the same outputs. Its tensors have PyTorch's names:
    /// those of a VGG load into torchvision with strict=True; other families have biases that torchvision's convolutions lack.
    Export(export::ExportArgs),
    /// Print and draw runs side by side: losses, accuracies, times, curves.
    Compare(compare::CompareArgs),
    /// List the adapters: name, type, backend, driver, limits, optional features.
    Devices,
    /// Print the kernels of a training step: shapes, operations, bytes, planned memory.
    Describe(Box<describe::DescribeArgs>),
    /// List the networks: forms, parameters, operations of an image.
    Models(models::ModelsArgs),
    /// Measure kernels and whole training steps.
    Bench(bench::BenchArgs),
    /// Time every kernel of a training step and write a trace for Perfetto or Chrome.
    ///
    /// The options are those of `decorr train`; without --data, images are those that the network is
    /// usually for. Prints the times by op and by layer.
    #[command(
        mut_arg("out", |a| a.value_name("FILE").help("The trace [default: trace.json]")),
        after_long_help = profile::EXAMPLES
    )]
    Profile(Box<profile::ProfileArgs>),
    /// Measure this adapter's fastest kernels anew and print the table.
    Tune(tune::TuneArgs),
    /// List, download, check and measure data sets.
    #[command(subcommand)]
    Data(data::DataCommand),
}

/// Which adapter.
#[derive(Debug, Args)]
struct AdapterArgs {
    /// Adapter by its number in `decorr devices` or a part of its name [default: the fastest GPU]
    #[arg(long, value_name = "NAME|INDEX", env = "DECORR_ADAPTER")]
    adapter: Option<String>,
    /// Only this backend: vulkan, metal, dx12 or gl
    #[arg(long, env = "DECORR_BACKEND")]
    backend: Option<String>,
}

impl AdapterArgs {
    /// Opens it, with a notice if it is a software adapter that was not asked for.
    fn open(&self) -> Result<Arc<Gpu>> {
        let gpu = Gpu::open(&AdapterChoice {
            adapter: self.adapter.clone(),
            backend: self.backend.clone(),
        })?;
        if gpu.is_software() && self.adapter.is_none() {
            note(format_args!(
                "no GPU was found: running on the CPU by {}, which is slow",
                gpu.name()
            ));
        }
        Ok(gpu)
    }

    /// As [`AdapterArgs::open`], for commands whose numbers count: a GPU that computes nothing is refused.
    fn open_to_run(&self) -> Result<Arc<Gpu>> {
        let gpu = self.open()?;
        self_check(&gpu)?;
        Ok(gpu)
    }
}

/// Whether kernels are measured.
#[derive(Clone, Debug, Args)]
struct TuneChoice {
    /// Use the default kernels of a GPU. Without this, the kernels that were measured to be the fastest on it
    /// are used, and measured now if they never were
    #[arg(long)]
    no_tune: bool,
}

impl TuneChoice {
    /// The kernels to take on `gpu` where the user names none; `None` for a software adapter's own.
    fn variants(&self, gpu: &Arc<Gpu>) -> Result<Option<Variants>> {
        match (gpu.is_software(), self.no_tune) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(Variants::Tiled(Tiles::default()))),
            (false, false) => Ok(Some(Variants::Tiled(tune::measured(gpu)?))),
        }
    }
}

/// The number of this process among those of its run.
static RANK: AtomicUsize = AtomicUsize::new(0);

/// Of several processes the first alone prints anything but errors and images that it leaves out.
fn set_rank(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

fn is_first() -> bool {
    RANK.load(Ordering::Relaxed) == 0
}

/// Prints an error, with the number of the process if it is not the first.
pub(crate) fn fail(error: &Error) {
    of_rank(format_args!("error: {error}"));
}

/// Prints to standard error what every process has to say, with its number if it is not the first.
fn of_rank(line: impl Display) {
    match RANK.load(Ordering::Relaxed) {
        0 => complain(line),
        rank => complain(format_args!("rank {rank}: {line}")),
    }
}

/// Prints a line. A reader that has had enough (`| head`) ends the program without complaint.
fn print(line: impl Display) {
    if !is_first() {
        return;
    }
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(format_args!("error: standard output: {error}"));
        std::process::exit(1);
    }
}

/// Prints a line to standard error, without what a terminal would take for commands: names of strangers' files are in it. One
/// that is closed, as by `2>&1 | head` or a terminal that is gone, ends nothing. Options that the library names are flags.
fn note(line: impl Display) {
    if is_first() {
        complain(line);
    }
}

fn complain(line: impl Display) {
    let line = harmless(&with_flags(&line.to_string()));
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `text` with a question mark for each character that a terminal would take for a command.
fn harmless(text: &str) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(is_command, "?")
}

/// A name of a stranger's file or class, without what would be a command to a terminal and is nothing to XML.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// What the library says, with flags of this program.
fn with_flags(text: &str) -> String {
    match text.contains('`') {
        true => flags::with_flags(text, &Cli::command()),
        false => text.into(),
    }
}

/// Prints `value` as JSON in a line, for --json.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Config(e.to_string()))?;
    print(text);
    Ok(())
}

pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Paper(args) => paper::run(&args),
        Command::Eval(args) => eval::run(*args),
        Command::Predict(args) => predict::run(*args),
        Command::Export(args) => export::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Devices => devices::run(),
        Command::Describe(args) => describe::run(*args),
        Command::Models(args) => models::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Profile(args) => profile::run(*args),
        Command::Tune(args) => tune::run(&args),
        Command::Data(command) => data::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_text_and_no_command() {
        for (text, wanted) in [
            ("a\tb\nc", "a\tb\nc"),
            ("\x1b[2J\r\x07", "?[2J??"),
            ("\u{9b}1m caf\u{e9}", "?1m caf\u{e9}"),
        ] {
            assert_eq!(harmless(text), wanted);
        }
    }
}
