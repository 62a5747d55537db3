//! `decorr eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use decorr::train::{Evaluation, LossName, TrainOptions, data_name_parser, evaluate_checkpoint};
use decorr::{Error, Result};

use super::checkpoint::CheckpointArgs;
use super::{AdapterArgs, note, print, print_json};

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    network: CheckpointArgs,
    /// Data set [default: that of the training]
    #[arg(long, value_parser = data_name_parser())]
    data: Option<String>,
    /// Folder of its files
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Rows and columns to which the pictures of --data folder are scaled [default: that of the
    /// training]
    #[arg(long)]
    image_size: Option<usize>,
    /// Test on this number of images only, chosen at random but always the same
    #[arg(long)]
    test_images: Option<usize>,
    /// Leave out pictures that cannot be read
    #[arg(long)]
    skip_bad: bool,
    /// Threads that load images
    #[arg(long)]
    workers: Option<usize>,
    /// Loss [default: that of the training]
    #[arg(long)]
    loss: Option<LossName>,
    /// Images per step [default: that of the training]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Print one JSON object: loss, top1, with 100 classes or more top5, images
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: EvalArgs) -> Result<()> {
    let gpu = args.adapter.open_to_run()?;
    let options = TrainOptions {
        data: args.data,
        data_dir: args.data_dir,
        image_size: args.image_size,
        test_images: args.test_images,
        skip_bad: args.skip_bad.then_some(true),
        workers: args.workers,
        loss: args.loss,
        batch_size: args.batch_size,
        ..args.network.options()
    };
    let result = evaluate_checkpoint(&gpu, &args.network.checkpoint, options, |text| {
        note(text);
    })?;
    if args.json {
        print_json(&result)?;
    } else {
        print(line(&result));
    }
    check(&args.network.checkpoint, &result)
}

/// Refuses a loss that is no number, once it is printed.
fn check(checkpoint: &Path, found: &Evaluation) -> Result<()> {
    if found.loss.is_finite() {
        return Ok(());
    }
    let message = format!(
        "the loss is {}: the network gives no numbers for some images",
        found.loss
    );
    Err(Error::checkpoint(checkpoint, message))
}

fn line(found: &Evaluation) -> String {
    format!("{found} over {} images", found.images)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As scripts see it: the exit status is that of an error.
    #[test]
    fn a_loss_that_is_no_number_is_an_error() {
        let of = |loss| {
            let found = Evaluation {
                loss,
                top1: 0.25,
                top5: None,
                images: 40,
            };
            check(Path::new("runs/a"), &found).map_err(|e| e.to_string())
        };
        assert_eq!(of(1e30), Ok(()));
        for (loss, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let wanted = format!(
                "checkpoint runs/a: the loss is {text}: the network gives no numbers for some images"
            );
            assert_eq!(of(loss), Err(wanted));
        }
    }

    #[test]
    fn each_number_stands_behind_its_name() {
        let found = Evaluation {
            loss: 1.5,
            top1: 0.25,
            top5: None,
            images: 40,
        };
        assert_eq!(line(&found), "loss 1.5000, top1 0.2500 over 40 images");
        let of_many = Evaluation {
            top5: Some(0.75),
            ..found
        };
        let wanted = "loss 1.5000, top1 0.2500, top5 0.7500 over 40 images";
        assert_eq!(line(&of_many), wanted);
    }
}
