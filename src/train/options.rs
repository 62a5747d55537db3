//! The options of a run: a row for each, with name, type, default, check and help.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};

#[cfg(feature = "cli")]
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
use crate::data;
#[cfg(feature = "cli")]
use crate::models::networks;
use crate::models::{DeconvSettings, Form, Norm};
use crate::nn::DeconvOptions;
use crate::{Error, Result};

/// What is done to training images at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum AugmentName {
    /// Nothing.
    None,
    /// What is usual for the set: a shift by up to 4 pixels and mirroring for CIFAR, a random resized crop
    /// and mirroring for a folder, nothing for the MNISTs.
    Default,
}

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum LossName {
    /// Softmax cross-entropy.
    Ce,
    /// Logistic loss, summed over classes.
    Bce,
    /// Half the squared error, summed over classes (Eq. 6).
    L2,
}

/// Which update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam.
    Adam,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// Does not change.
    Constant,
    /// Falls to 0 over the run like half a cosine.
    Cosine,
    /// Is multiplied by --gamma every --step-size epochs.
    Step,
}

/// Reads the name of a data set on the command line.
#[cfg(feature = "cli")]
pub fn data_name_parser() -> PossibleValuesParser {
    let value = |set: &data::Set| PossibleValue::new(set.name).help(set.about);
    PossibleValuesParser::new(data::SETS.iter().map(value))
}

/// What `--model` takes, with a line for each in the help.
#[cfg(feature = "cli")]
fn model_names() -> PossibleValuesParser {
    PossibleValuesParser::new(networks().map(|n| PossibleValue::new(n.name).help(n.about)))
}

/// A row's help, and the default as one types it: as in config.toml, without quotes and `.0`.
#[cfg(feature = "cli")]
fn help<T: Serialize>(text: &str, default: Option<T>) -> String {
    let value = default.and_then(|value| serde_json::to_string(&value).ok());
    match value.as_deref().map(|value| value.trim_matches('"')) {
        Some(value) => {
            let value = value.strip_suffix(".0").unwrap_or(value);
            format!("{text} [default: {value}]")
        }
        None => text.into(),
    }
}

/// The check of a row that needs none here: all values are possible, or clap, [`super::TrainConfig::resolve`] or what opens
/// the file refuses others. A check says what is wrong with a value.
fn any<T>(_: &T) -> Option<String> {
    None
}

/// The check of a whole number. The largest of a size is far above all that is of use, and far below what overflows or never
/// ends.
fn within<T: PartialOrd + Display>(range: impl RangeBounds<T>) -> impl Fn(&T) -> Option<String> {
    move |value| match (range.start_bound(), range.end_bound()) {
        (Bound::Included(least), _) if value < least => Some(format!("must be at least {least}")),
        (_, Bound::Included(most)) if value > most => Some(format!("{value} is more than {most}")),
        _ => None,
    }
}

/// The check of a number that is `what`, in words, where `holds`.
fn number(what: &str, holds: fn(f32) -> bool) -> impl Fn(&f32) -> Option<String> {
    move |&value| (!holds(value)).then(|| format!("{value} is not {what}"))
}

fn positive() -> impl Fn(&f32) -> Option<String> {
    number("a positive number", |v| v.is_finite() && v > 0.0)
}

fn below_1() -> impl Fn(&f32) -> Option<String> {
    number("in [0, 1)", |v| (0.0..1.0).contains(&v))
}

macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty = $default:expr, $check:expr, $help:literal;)*) => {
        /// Options as given: on the command line or in a config file. What is `None` was not.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args))]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct TrainOptions {
            $(
                #[doc = $help]
                $(#[$meta])*
                #[cfg_attr(feature = "cli", arg(
                    long,
                    allow_negative_numbers = true,
                    help = help($help, TrainOptions::defaults().$name)
                ))]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        impl TrainOptions {
            /// These, and where they are `None`, those of `below`.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }

            /// The defaults.
            pub fn defaults() -> Self {
                Self { $($name: $default,)* }
            }

            /// Refuses what an option cannot be, whatever the others are.
            pub(super) fn check(&self) -> Result<()> {
                $(
                    if let Some(wrong) = self.$name.as_ref().and_then($check) {
                        return Err(Error::Config(format!("`{}` {wrong}", stringify!($name))));
                    }
                )*
                Ok(())
            }
        }
    };
}

// Name: type = default, check, help. The help of an option with a default ends with it.
options! {
    init: PathBuf = None, any, "Begin with the weights of another network, for fine-tuning: the folder of a run, a checkpoint, or a state dict of torchvision as safetensors. A last layer with another number of classes begins anew";
    preset: String = None, any, "Settings of the paper as defaults: DATA-MODEL-NORM, for example cifar10-vgg11-deconv, cifar100-resnet50-batch or imagenet-resnet18-none (with --data-dir); an unknown name lists all. Other options override it";
    #[cfg_attr(feature = "cli", arg(value_parser = data_name_parser()))]
    data: String = Some("fashion-mnist".into()), any, "Data set";
    data_dir: PathBuf = None, any, "Folder of the set's files, or the folder above it [default: data (where `decorr data fetch` puts them), then /usr/share/datasets; for Fashion-MNIST the built-in subset]";
    augment: AugmentName = Some(AugmentName::Default), any, "Random changes of training images";
    image_size: usize = Some(224), within(1..=1 << 16), "Rows and columns to which the pictures of --data folder are scaled";
    train_images: usize = None, within(1..), "Train on this number of images only, chosen at random but always the same";
    test_images: usize = None, within(1..), "Test on this number of images only, chosen at random but always the same";
    #[cfg_attr(feature = "cli", arg(num_args = 0..=1, default_missing_value = "true"))]
    skip_bad: bool = Some(false), any, "Report pictures that cannot be read and continue without them";
    workers: usize = None, within(1..=1 << 10), "Threads that load images; results do not depend on it [default: 1, for --data folder as many as there are cores, up to 16]";
    #[cfg_attr(feature = "cli", arg(value_parser = model_names()))]
    model: String = Some("cnn".into()), any, "Network, see `decorr models`";
    form: Form = None, any, "Stem and head, for networks with two forms [default: cifar; imagenet for images larger than 64 pixels]";
    width: f32 = Some(1.0), number("above 0 and at most 16", |v| v > 0.0 && v <= 16.0), "Factor for all numbers of channels, rounded to multiples of 8";
    dropout: f32 = Some(0.5), below_1(), "Probability of dropout in the head of VGG's ImageNet form";
    norm: Norm = Some(Norm::Deconv), any, "What normalises the layers";
    loss: LossName = Some(LossName::Ce), any, "Loss";
    epochs: u64 = Some(2), within(1..), "Passes over the training images";
    steps: u64 = None, within(1..), "Stop after this number of steps, whatever --epochs says; --schedule cosine then ends there too";
    stop_after: u64 = None, within(1..), "Stop after this number of steps, as if interrupted: unlike --steps, it leaves the schedule as it is. --resume with a larger number goes on";
    batch_size: usize = Some(128), within(1..=1 << 20), "Images per step";
    accumulate: usize = Some(1), within(1..), "Process the images of a step in this number of parts, one after the other, if they do not fit in memory at once; statistics of batch norm and deconvolution are then those of each part";
    #[cfg_attr(feature = "cli", arg(num_args = 0..=1, default_missing_value = "true"))]
    sync_stats: bool = Some(false), any, "In a run of several processes (docs/scaling.md), batch norm and deconvolution take the statistics of the whole batch, as one process does; without it, each process takes those of its part";
    rank_timeout: u64 = Some(60), within(1..=1 << 20), "Seconds that a process of several waits for the others in an exchange before it ends the run; ten times as long at the start, at evaluations and checkpoints";
    optimizer: OptimizerName = Some(OptimizerName::Sgd), any, "Update rule";
    lr: f32 = Some(0.1), positive(), "Learning rate";
    momentum: f32 = Some(0.9), below_1(), "SGD's momentum";
    #[cfg_attr(feature = "cli", arg(num_args = 0..=1, default_missing_value = "true"))]
    nesterov: bool = Some(false), any, "Nesterov's momentum";
    weight_decay: f32 = Some(0.0), number("a number from 0", |v| (0.0..=f32::MAX).contains(&v)), "This factor times the parameters is added to their gradients";
    schedule: ScheduleName = Some(ScheduleName::Constant), any, "How the learning rate changes";
    step_size: u64 = Some(30), within(1..), "Epochs between drops of --schedule step";
    gamma: f32 = Some(0.1), positive(), "Factor of a drop of --schedule step";
    warmup_steps: u64 = Some(0), any, "In the first steps, this many, the learning rate rises linearly from 0 to that of the schedule";
    clip_grad_norm: f32 = None, positive(), "Scale gradients down to this norm, over all parameters together, where theirs is larger; before weight decay";
    label_smoothing: f32 = Some(0.0), below_1(), "Share of the target that is spread over all classes, for --loss ce";
    block: usize = None, within(1..=1 << 20), "Channels or features that are decorrelated together. If it does not divide their number, the greatest common divisor is used (512 of 784: 16). Linear layers of a convolutional network always use 512, or a 32nd of the features with --form imagenet [default: 64; 512 for --model linear and mlp; 32 for --norm channel]";
    eps: f32 = None, positive(), "Added to the diagonal of covariances [default: 1e-5; 1e-2 for --norm channel]";
    n_iter: usize = Some(DeconvOptions::default().n_iter), within(1..=100), "Denman-Beavers iterations of all layers except a first convolution";
    first_n_iter: usize = Some(DeconvSettings::FIRST_N_ITER), within(1..=100), "Denman-Beavers iterations of a first convolution";
    sampling_stride: usize = Some(DeconvOptions::default().sampling_stride), within(1..=1 << 16), "Statistics of convolutions use every n-th patch in both directions; 1 uses all";
    stat_momentum: f32 = Some(DeconvOptions::default().momentum), number("in (0, 1]", |v| v > 0.0 && v <= 1.0), "Weight of the new value in running statistics";
    refresh: usize = Some(1), within(1..=1 << 20), "With --norm deconv, compute covariance and D in every n-th step. 1 is the paper's layer. With more, the steps between use the last D with the mean and variances of their own images, for a fraction of the work";
    refresh_after: u64 = Some(0), any, "With --refresh above 1, compute covariance and D in every step before this one. A third of the run recovers more than half of the accuracy that --refresh 8 costs, for a third of the time that it saves (docs/results.md)";
    freeze_iter: u64 = Some(100), any, "The first convolution uses the statistics of its images in the first N + 1 of every 10 N steps, and its running statistics in the others; 0: never the running ones";
    log_every: u64 = Some(10), within(1..), "Steps between lines of metrics.jsonl";
    save_every: u64 = Some(500), within(1..), "Steps between checkpoints, in addition to those at the end of each epoch";
    eval_every: u64 = None, within(1..), "Steps between evaluations on the test images, in addition to those at the end of each epoch";
    #[cfg_attr(feature = "cli", arg(num_args = 0..=1, default_missing_value = "true"))]
    keep_best: bool = Some(false), any, "Keep the weights of the evaluation with the highest test accuracy as best.safetensors";
    #[cfg_attr(feature = "cli", arg(num_args = 0..=1, default_missing_value = "true"))]
    tensorboard: bool = Some(false), any, "Write event files for TensorBoard into the run's folder too: losses, accuracies and learning rate as scalars; at the start and at each evaluation histograms of the parameters, and pictures of the first layer's kernels and of a test image before and after deconvolution";
    kernels: String = None, any, "Kernels of products: direct or subgroup (for CPU adapters), tiled (for GPUs), tiled:TILE (one tile everywhere, for example tiled:128x128x8), or measured (the fastest tiles on this adapter, see `decorr tune`) [default: measured on a GPU; on a CPU adapter those that suit it]";
    seed: u64 = Some(1), any, "Decides the initial weights and the order of images";
    out: PathBuf = Some(PathBuf::from("runs/run")), any, "Folder for results";
}

impl TrainOptions {
    /// The folder of results.
    pub fn out_or_default(&self) -> PathBuf {
        let out = self.out.clone().or(Self::defaults().out);
        out.unwrap_or_default()
    }

    /// Reads a config file: any of the options, named as on the command line without dashes in
    /// front.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Config`] naming the key and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        toml::from_str(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named() {
        let error = toml::from_str::<TrainOptions>("batchsize = 64").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("batchsize") && text.contains("batch-size"),
            "{text}"
        );
    }

    #[test]
    fn defaults_are_possible() {
        TrainOptions::defaults().check().unwrap();
    }

    #[test]
    #[cfg(feature = "cli")]
    fn help_ends_with_the_default() {
        let command = <TrainOptions as clap::Args>::augment_args(clap::Command::new("train"));
        let ends = |name: &str, end: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_id() == name);
            let help = arg.and_then(|arg| arg.get_help()).unwrap().to_string();
            assert!(help.ends_with(end), "{help}");
        };
        ends("norm", "layers [default: deconv]");
        ends("width", "of 8 [default: 1]");
        ends("lr", "rate [default: 0.1]");
        ends("out", "results [default: runs/run]");
        ends("skip_bad", "them [default: false]");
        ends("tensorboard", "after deconvolution [default: false]");
        ends("n_iter", "convolution [default: 5]");
        ends("block", "32 for --norm channel]");
        ends("steps", "ends there too");
    }

    /// As docs and help have them; a run's results depend on each.
    #[test]
    fn defaults_are_those_of_the_help() {
        let wanted = r#"
            data = "fashion-mnist"
            augment = "default"
            image-size = 224
            skip-bad = false
            model = "cnn"
            width = 1.0
            dropout = 0.5
            norm = "deconv"
            loss = "ce"
            epochs = 2
            batch-size = 128
            accumulate = 1
            sync-stats = false
            rank-timeout = 60
            optimizer = "sgd"
            lr = 0.1
            momentum = 0.9
            nesterov = false
            weight-decay = 0.0
            schedule = "constant"
            step-size = 30
            gamma = 0.1
            warmup-steps = 0
            label-smoothing = 0.0
            n-iter = 5
            first-n-iter = 15
            sampling-stride = 3
            stat-momentum = 0.1
            refresh = 1
            refresh-after = 0
            freeze-iter = 100
            log-every = 10
            save-every = 500
            keep-best = false
            tensorboard = false
            seed = 1
            out = "runs/run"
        "#;
        let wanted: TrainOptions = toml::from_str(wanted).unwrap();
        let text = |options: &TrainOptions| toml::to_string(options).unwrap();
        assert_eq!(text(&TrainOptions::defaults()), text(&wanted));
    }

    /// The ends of each range are in it, and what is just beyond is refused.
    #[test]
    fn ranges_end_where_they_are_said_to() {
        for (name, within, beyond) in [
            ("image-size", "1 65536", "0 65537"),
            ("train-images", "1", "0"),
            ("test-images", "1", "0"),
            ("workers", "1 1024", "0 1025"),
            ("width", "0.001 16.0", "0.0 16.01 nan"),
            ("dropout", "0.0 0.999", "-0.001 1.0 nan"),
            ("epochs", "1", "0"),
            ("steps", "1", "0"),
            ("stop-after", "1", "0"),
            ("eval-every", "1", "0"),
            ("clip-grad-norm", "1e-9 1e9", "0.0 inf nan"),
            ("batch-size", "1 1048576", "0 1048577"),
            ("accumulate", "1", "0"),
            ("lr", "1e-9 1e9", "0.0 -0.1 inf nan"),
            ("momentum", "0.0 0.999", "-0.001 1.0 nan"),
            ("weight-decay", "0.0 1e9", "-1e-9 inf nan"),
            ("step-size", "1", "0"),
            ("gamma", "1e-9 2.0", "0.0 inf nan"),
            ("label-smoothing", "0.0 0.999", "-0.001 1.0 nan"),
            ("block", "1 1048576", "0 1048577"),
            ("eps", "1e-9 1e9", "0.0 inf nan"),
            ("n-iter", "1 100", "0 101"),
            ("first-n-iter", "1 100", "0 101"),
            ("sampling-stride", "1 65536", "0 65537"),
            ("stat-momentum", "1e-9 1.0", "0.0 1.001 nan"),
            ("refresh", "1 1048576", "0 1048577"),
            ("log-every", "1", "0"),
            ("save-every", "1", "0"),
        ] {
            let check = |value: &str| -> Result<()> {
                let options = toml::from_str::<TrainOptions>(&format!("{name} = {value}"));
                options.unwrap().check()
            };
            for value in within.split(' ') {
                assert!(check(value).is_ok(), "{name} {value} is refused");
            }
            for value in beyond.split(' ') {
                let error = check(value)
                    .expect_err(&format!("{name} {value}"))
                    .to_string();
                assert!(error.contains(&name.replace('-', "_")), "{error}");
            }
        }
    }
}
