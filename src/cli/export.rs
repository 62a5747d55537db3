//! `decorr export`.

use std::path::PathBuf;

use clap::Args;
use decorr::files::{expect_ending, prepare_out};
use decorr::train::export;
use decorr::{Error, Result};

use super::print;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder of a run, or a checkpoint of one
    checkpoint: PathBuf,
    /// Fold deconvolution into plain weights and biases: W' = W D for each block, b' = b - sum of W' mean
    #[arg(long, required = true)]
    fold: bool,
    /// File to write, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite it if it is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let out = &args.out;
    expect_ending(out, &["safetensors"])?;
    if out.exists() && !args.force {
        let message = format!("{} is there already; --force overwrites it", out.display());
        return Err(Error::Config(message));
    }
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        prepare_out(folder, true)?;
    }
    let count = export(&args.checkpoint, out)?;
    print(format_args!(
        "wrote {}: {count} layers folded",
        out.display()
    ));
    Ok(())
}
