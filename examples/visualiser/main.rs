//! Shows what decorrelation does to images: Figures 2, 3 and 9 of the paper as files, or a window.
//!
//! `cargo run --release --example visualiser -- fig3 photo.jpg --out pictures` writes pictures and needs
//! no display; `cargo run --release --example visualiser -- --window photo.jpg` opens a window.

mod files;
#[path = "../../src/cli/flags.rs"]
mod flags;
mod options;
mod window;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use decorr::{Error, Result};

use options::AdapterArgs;

/// The paper's figures on your own images, as files or in a window.
///
/// Begin with `fig3 photo.jpg --out pictures`, or with --window.
#[derive(Debug, Parser)]
#[command(name = "visualiser", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Open a window, with this image or the bundled one
    #[arg(long, value_name = "IMAGE", num_args = 0..=1)]
    window: Option<Option<PathBuf>>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Covariance of patches before and after deconvolution, and the kernels that decorrelate: of
    /// pixels, or of the input of a layer of a trained network.
    Fig2(files::Fig2Args),
    /// Input, |zero-mean input|, deconvolved input, |deconvolved|; with --blur the original, blurred,
    /// deconvolved (Figure 1: blurring correlates neighbours, deconvolution removes the correlation).
    Fig3(files::Fig3Args),
    /// The input of a convolution of a trained network, before and after deconvolution, one tile per
    /// channel.
    Fig9(files::Fig9Args),
    /// Print a table: how sparse and how correlated images are before and after.
    Measure(files::MeasureArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without what a terminal would take for commands, out of the names of files.
            let text = flags::with_flags(&error.to_string(), &Cli::command())
                .replace(|c: char| c.is_control() && c != '\n', "?");
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let adapter = &cli.adapter;
    match (cli.command, cli.window) {
        (Some(_), Some(_)) => Err(Error::Config(
            "--window opens a window, and a command writes files: one or the other".into(),
        )),
        (Some(Command::Fig2(args)), None) => files::fig2(&args, adapter),
        (Some(Command::Fig3(args)), None) => files::fig3(&args, adapter),
        (Some(Command::Fig9(args)), None) => files::fig9(&args, adapter),
        (Some(Command::Measure(args)), None) => files::measure(&args, adapter),
        (None, Some(image)) => window::open(adapter, image.as_deref()),
        (None, None) => match Cli::command().print_long_help() {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
            _ => Ok(()),
        },
    }
}
