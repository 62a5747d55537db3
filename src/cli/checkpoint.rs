//! The trained network that `eval` and `predict` take.

use std::path::PathBuf;

use clap::Args;
use decorr::models::{Form, Norm};
use decorr::train::TrainOptions;

/// A trained network.
#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    /// Folder of a run, a checkpoint of one, or a state dict of PyTorch as safetensors
    #[arg(long, value_name = "RUN|FILE")]
    pub(super) checkpoint: PathBuf,
    /// Network of a file that does not say it, see `decorr models` [default: the VGG, ResNet or DenseNet whose tensors it has]
    #[arg(long)]
    model: Option<String>,
    /// Its norm [default: by its running statistics]
    #[arg(long)]
    norm: Option<Norm>,
    /// Its stem and head, if it has two [default: by its tensors]
    #[arg(long)]
    form: Option<Form>,
}

impl CheckpointArgs {
    /// Which network it is, as far as it was said.
    pub(super) fn options(&self) -> TrainOptions {
        TrainOptions {
            model: self.model.clone(),
            norm: self.norm,
            form: self.form,
            ..TrainOptions::default()
        }
    }
}
