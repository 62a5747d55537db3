//! `decorr eval`.

use std::path::PathBuf;

use clap::Args;
use decorr::train::{DataName, LossName, TrainOptions, evaluate_checkpoint};
use decorr::{Error, Result};

use super::AdapterArgs;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Checkpoint written by `decorr train`
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Data set [default: that of the training]
    #[arg(long)]
    data: Option<DataName>,
    /// Folder of its IDX files
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Loss [default: that of the training]
    #[arg(long)]
    loss: Option<LossName>,
    /// Images of a step [default: that of the training]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Print one JSON object: loss, top1, images
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: EvalArgs) -> Result<()> {
    let gpu = args.adapter.open()?;
    let options = TrainOptions {
        data: args.data,
        data_dir: args.data_dir,
        loss: args.loss,
        batch_size: args.batch_size,
        ..TrainOptions::default()
    };
    let result = evaluate_checkpoint(&gpu, &args.checkpoint, options)?;
    if args.json {
        let text = serde_json::to_string(&result).map_err(|e| Error::Config(e.to_string()))?;
        println!("{text}");
    } else {
        println!(
            "loss {:.4}, top1 {:.4} over {} images",
            result.loss, result.top1, result.images
        );
    }
    Ok(())
}
