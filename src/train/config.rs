//! Everything that decides a training run: command line, config.toml, defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::presets::preset;
use super::trained::Interface;
use crate::data::{self, DataOptions, DataSet};
use crate::graph::op::Variants;
use crate::models::{DeconvSettings, Form, Model, Norm, networks};
use crate::nn::Loss;
use crate::optim::{Adam, Optimizer, Schedule, Sgd};
use crate::program::Store;
use crate::{Error, Result};

/// What is done to training images at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AugmentName {
    /// Nothing.
    None,
    /// What is usual for the set: a shift by up to 4 pixels and mirroring for CIFAR, a random resized crop
    /// and mirroring for a folder, nothing for the MNISTs.
    Default,
}

/// Reads the name of a data set on the command line.
pub fn data_name_parser() -> PossibleValuesParser {
    let value = |set: &data::Set| PossibleValue::new(set.name).help(set.about);
    PossibleValuesParser::new(data::SETS.iter().map(value))
}

/// What normalises the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormName {
    /// Nothing.
    None,
    /// Batch normalisation.
    Batch,
    /// Channel deconvolution.
    Channel,
    /// Network deconvolution.
    Deconv,
}

impl From<NormName> for Norm {
    fn from(name: NormName) -> Self {
        match name {
            NormName::None => Self::None,
            NormName::Batch => Self::Batch,
            NormName::Channel => Self::Channel,
            NormName::Deconv => Self::Deconv,
        }
    }
}

/// What `--model` takes, with a line for each in the help.
fn model_names() -> PossibleValuesParser {
    PossibleValuesParser::new(networks().map(|n| PossibleValue::new(n.name).help(n.about)))
}

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam.
    Adam,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// Does not change.
    Constant,
    /// Falls to 0 over the run like half a cosine.
    Cosine,
    /// Is multiplied by --gamma every --step-size epochs.
    Step,
}

macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty = $default:expr, $help:literal;)*) => {
        /// Options as given: on the command line or in a config file. What is `None` was not.
        #[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct TrainOptions {
            $(
                #[doc = $help]
                $(#[$meta])*
                #[arg(long, allow_negative_numbers = true)]
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
        }
    };
}

options! {
    init: PathBuf = None, "Begin with the weights of another network, for fine-tuning: the folder of a run, a checkpoint, or a state dict of torchvision as safetensors. A last layer with another number of classes begins anew";
    preset: String = None, "Settings of the paper as defaults: DATA-MODEL-NORM, for example cifar10-vgg11-deconv, cifar100-resnet50-batch or imagenet-resnet18-none (with --data-dir); an unknown name lists all. Other options override it";
    #[arg(value_parser = data_name_parser())]
    data: String = Some("fashion-mnist".into()), "Data set [default: fashion-mnist]";
    data_dir: PathBuf = None, "Folder of the set's files, or the folder above it [default: data (where `decorr data fetch` puts them), then /usr/share/datasets; for Fashion-MNIST the built-in subset]";
    augment: AugmentName = Some(AugmentName::Default), "Random changes of training images [default: default]";
    image_size: usize = Some(224), "Rows and columns to which the pictures of --data folder are scaled [default: 224]";
    train_images: usize = None, "Train on this number of images only, chosen at random but always the same";
    test_images: usize = None, "Test on this number of images only, chosen at random but always the same";
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    skip_bad: bool = Some(false), "Report pictures that cannot be read and continue without them [default: false]";
    workers: usize = None, "Threads that load images; results do not depend on it [default: 1, for --data folder as many as there are cores, up to 16]";
    #[arg(value_parser = model_names())]
    model: String = Some("cnn".into()), "Network, see `decorr models` [default: cnn]";
    form: Form = None, "Stem and head, for networks with two forms [default: cifar; imagenet for images larger than 64 pixels]";
    width: f32 = Some(1.0), "Factor for all numbers of channels, rounded to multiples of 8 [default: 1]";
    dropout: f32 = Some(0.5), "Probability of dropout in the head of VGG's ImageNet form [default: 0.5]";
    norm: NormName = Some(NormName::Deconv), "What normalises the layers [default: deconv]";
    loss: LossName = Some(LossName::Ce), "Loss [default: ce]";
    epochs: u64 = Some(2), "Passes over the training images [default: 2]";
    steps: u64 = None, "Stop after this number of steps, whatever --epochs says; --schedule cosine then ends there too";
    batch_size: usize = Some(128), "Images per step [default: 128]";
    accumulate: usize = Some(1), "Process the images of a step in this number of parts, one after the other, if they do not fit in memory at once; statistics of batch norm and deconvolution are then those of each part [default: 1]";
    optimizer: OptimizerName = Some(OptimizerName::Sgd), "Update rule [default: sgd]";
    lr: f32 = Some(0.1), "Learning rate [default: 0.1]";
    momentum: f32 = Some(0.9), "SGD's momentum [default: 0.9]";
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    nesterov: bool = Some(false), "Nesterov's momentum [default: false]";
    weight_decay: f32 = Some(0.0), "This factor times the parameters is added to their gradients [default: 0]";
    schedule: ScheduleName = Some(ScheduleName::Constant), "How the learning rate changes [default: constant]";
    step_size: u64 = Some(30), "Epochs between drops of --schedule step [default: 30]";
    gamma: f32 = Some(0.1), "Factor of a drop of --schedule step [default: 0.1]";
    label_smoothing: f32 = Some(0.0), "Share of the target that is spread over all classes, for --loss ce [default: 0]";
    block: usize = None, "Channels or features that are decorrelated together. If it does not divide their number, the greatest common divisor is used (512 of 784: 16). Linear layers of a convolutional network always use 512, or a 32nd of the features with --form imagenet [default: 64; 512 for --model linear and mlp; 32 for --norm channel]";
    eps: f32 = None, "Added to the diagonal of covariances [default: 1e-5; 1e-2 for --norm channel]";
    n_iter: usize = None, "Denman-Beavers iterations of all layers except a first convolution [default: 5]";
    first_n_iter: usize = None, "Denman-Beavers iterations of a first convolution [default: 15]";
    sampling_stride: usize = None, "Statistics of convolutions use every n-th patch in both directions; 1 uses all [default: 3]";
    stat_momentum: f32 = None, "Weight of the new value in running statistics [default: 0.1]";
    refresh: usize = Some(1), "With --norm deconv, compute covariance and D in every n-th step. 1 is the paper's layer. With more, the steps between use the last D with the mean and variances of their own images, for a fraction of the work [default: 1]";
    refresh_after: u64 = Some(0), "With --refresh above 1, compute covariance and D in every step before this one. A third of the run recovers more than half of the accuracy that --refresh 8 costs, for a third of the time that it saves (docs/results.md) [default: 0]";
    freeze_iter: u64 = Some(100), "The first convolution uses the statistics of its images in the first N + 1 of every 10 N steps, and its running statistics in the others; 0: never the running ones [default: 100]";
    log_every: u64 = Some(10), "Steps between lines of metrics.jsonl [default: 10]";
    save_every: u64 = Some(500), "Steps between checkpoints, in addition to those at the end of each epoch [default: 500]";
    kernels: String = None, "Kernels of products: direct or subgroup (for CPU adapters), tiled (for GPUs), tiled:TILE (one tile everywhere, for example tiled:128x128x8), or measured (the fastest tiles on this adapter, see `decorr tune`) [default: measured on a GPU; on a CPU adapter those that suit it]";
    seed: u64 = Some(1), "Decides the initial weights and the order of images [default: 1]";
    out: PathBuf = Some(PathBuf::from("runs/run")), "Folder for results [default: runs/run]";
}

/// A resolved run: every option has its value.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// What config.toml says.
    pub options: TrainOptions,
    /// Data set by name.
    pub data: String,
    /// What is taken of it, and how it is loaded.
    pub data_options: DataOptions,
    /// Network, but for its number of classes.
    model: Model,
    /// Loss.
    pub loss: Loss,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Passes over the images, if `steps` does not end the run before.
    pub epochs: u64,
    /// Most steps.
    pub steps: Option<u64>,
    /// Images of a step.
    pub batch_size: usize,
    /// Parts of a step, see [`super::accumulation_step`].
    pub accumulate: usize,
    /// Base learning rate.
    pub lr: f32,
    /// Seed.
    pub seed: u64,
    /// Steps between logged ones.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// See [`crate::nn::FreezeCounter`].
    pub freeze_iter: u64,
    /// Kernels, if the options name them: [`Store::set_variants`] is given those.
    pub kernels: Option<Variants>,
    /// Folder of results.
    pub out: PathBuf,
}

impl TrainConfig {
    /// `options` over the defaults, checked.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub fn resolve(options: TrainOptions) -> Result<Self> {
        let preset = match &options.preset {
            Some(name) => preset(name)?,
            None => TrainOptions::default(),
        };
        let mut o = options.over(preset).over(TrainOptions::defaults());
        // The defaults above give these a value; an absent one is a bug, said as an error.
        fn need<T: Clone>(value: &Option<T>, name: &str) -> Result<T> {
            let missing = || Error::bug(format!("--{name} has no value"));
            value.clone().ok_or_else(missing)
        }
        let batch_size = need(&o.batch_size, "batch-size")?;
        check_sizes(&o)?;
        let epochs = need(&o.epochs, "epochs")?;
        let lr = need(&o.lr, "lr")?;
        let momentum = need(&o.momentum, "momentum")?;
        let weight_decay = need(&o.weight_decay, "weight-decay")?;
        let smoothing = need(&o.label_smoothing, "label-smoothing")?;
        let log_every = need(&o.log_every, "log-every")?;
        let save_every = need(&o.save_every, "save-every")?;
        let rule = |holds: bool, message: String| match holds {
            true => Ok(()),
            false => Err(Error::Config(message)),
        };
        rule(batch_size > 0, "--batch-size must be at least 1".into())?;
        let accumulate = need(&o.accumulate, "accumulate")?;
        rule(
            accumulate > 0 && batch_size.is_multiple_of(accumulate),
            format!("--accumulate {accumulate} does not divide --batch-size {batch_size}"),
        )?;
        rule(epochs > 0, "--epochs must be at least 1".into())?;
        rule(o.steps != Some(0), "--steps must be at least 1".into())?;
        rule(log_every > 0, "--log-every must be at least 1".into())?;
        rule(save_every > 0, "--save-every must be at least 1".into())?;
        let positive = |v: f32| v.is_finite() && v > 0.0;
        rule(positive(lr), format!("--lr {lr} is not a positive number"))?;
        let in_unit = |v: f32| (0.0..1.0).contains(&v);
        rule(
            in_unit(momentum),
            format!("--momentum {momentum} is not in [0, 1)"),
        )?;
        rule(
            in_unit(smoothing),
            format!("--label-smoothing {smoothing} is not in [0, 1)"),
        )?;
        let gamma = need(&o.gamma, "gamma")?;
        rule(
            positive(gamma),
            format!("--gamma {gamma} is not a positive number"),
        )?;
        let decay_ok = (0.0..=f32::MAX).contains(&weight_decay);
        rule(
            decay_ok,
            format!("--weight-decay {weight_decay} is not a number from 0"),
        )?;
        let nesterov = need(&o.nesterov, "nesterov")?;
        let needs_momentum = !nesterov || momentum > 0.0;
        rule(
            needs_momentum,
            "--nesterov needs a --momentum above 0".into(),
        )?;
        rule(
            o.step_size != Some(0),
            "--step-size must be at least 1".into(),
        )?;

        let norm = need(&o.norm, "norm")?.into();
        let model = Model::new(&need(&o.model, "model")?, norm, 0)?;
        let name = model.network.name;
        rule(
            o.form
                .is_none_or(|form| model.network.forms.contains(&form)),
            format!("--model {name} has no forms to choose from by --form"),
        )?;
        let width = need(&o.width, "width")?;
        rule(
            width > 0.0 && width <= 16.0,
            format!("--width {width} is not above 0 and at most 16"),
        )?;
        let dropout = need(&o.dropout, "dropout")?;
        rule(
            in_unit(dropout),
            format!("--dropout {dropout} is not in [0, 1)"),
        )?;
        let defaults = model.deconv;
        let deconv = DeconvSettings {
            block: *o.block.get_or_insert(defaults.block),
            eps: *o.eps.get_or_insert(defaults.eps),
            n_iter: *o.n_iter.get_or_insert(defaults.n_iter),
            first_n_iter: *o.first_n_iter.get_or_insert(defaults.first_n_iter),
            momentum: *o.stat_momentum.get_or_insert(defaults.momentum),
            sampling_stride: *o.sampling_stride.get_or_insert(defaults.sampling_stride),
            refresh: need(&o.refresh, "refresh")?,
            refresh_after: need(&o.refresh_after, "refresh-after")?,
        };
        let DeconvSettings { block, eps, .. } = deconv;
        rule(block > 0, "--block must be at least 1".into())?;
        rule(deconv.n_iter > 0, "--n-iter must be at least 1".into())?;
        rule(
            deconv.first_n_iter > 0,
            "--first-n-iter must be at least 1".into(),
        )?;
        rule(
            deconv.sampling_stride > 0,
            "--sampling-stride must be at least 1".into(),
        )?;
        rule(deconv.refresh > 0, "--refresh must be at least 1".into())?;
        rule(
            deconv.refresh == 1 || norm == Norm::Deconv,
            format!("--refresh {} is for --norm deconv", deconv.refresh),
        )?;
        rule(
            deconv.refresh_after == 0 || deconv.refresh > 1,
            "--refresh-after is for --refresh above 1".into(),
        )?;
        rule(
            positive(eps),
            format!("--eps {eps} is not a positive number"),
        )?;
        let share = deconv.momentum > 0.0 && deconv.momentum <= 1.0;
        rule(
            share,
            format!("--stat-momentum {} is not in (0, 1]", deconv.momentum),
        )?;
        let loss = match need(&o.loss, "loss")? {
            LossName::Ce => Loss::CrossEntropy { smoothing },
            LossName::Bce => Loss::Logistic,
            LossName::L2 => Loss::HalfSquaredError,
        };
        let optimizer = match need(&o.optimizer, "optimizer")? {
            OptimizerName::Sgd => Optimizer::Sgd(Sgd {
                momentum,
                weight_decay,
                nesterov,
            }),
            OptimizerName::Adam => Optimizer::Adam(Adam {
                weight_decay,
                ..Adam::default()
            }),
        };
        Ok(Self {
            data: need(&o.data, "data")?,
            data_options: data_options(&o)?,
            model: Model {
                form: o.form,
                width,
                dropout,
                deconv,
                ..model
            },
            loss,
            optimizer,
            epochs,
            steps: o.steps,
            batch_size,
            accumulate,
            lr,
            seed: need(&o.seed, "seed")?,
            log_every,
            save_every,
            freeze_iter: need(&o.freeze_iter, "freeze-iter")?,
            kernels: o.kernels.as_deref().map(str::parse).transpose()?,
            out: need(&o.out, "out")?,
            options: o,
        })
    }

    /// Opens the data set.
    ///
    /// # Errors
    /// As [`data::open`].
    pub fn open_data(&self) -> Result<DataSet> {
        self.open_data_as(None, false)
    }

    /// As [`TrainConfig::open_data`], for a network that knows its classes by these names; for an evaluation a folder may
    /// have its test pictures only.
    ///
    /// # Errors
    /// As [`data::open`].
    pub(super) fn open_data_as(
        &self,
        class_names: Option<Vec<String>>,
        test_only: bool,
    ) -> Result<DataSet> {
        let options = DataOptions {
            test_only,
            class_names,
            ..self.data_options.clone()
        };
        data::open(&self.data, self.options.data_dir.as_deref(), &options)
    }

    /// The network for this many classes.
    pub fn model(&self, classes: usize) -> Model {
        Model {
            classes,
            ..self.model
        }
    }

    /// Names the kernels, so that config.toml and checkpoints hold them and a resumed run takes the same.
    pub fn set_kernels(&mut self, variants: Variants) {
        self.kernels = Some(variants);
        self.options.kernels = Some(variants.to_string());
    }

    /// Has programs of `store` take [`TrainConfig::kernels`], if there are any.
    ///
    /// # Errors
    /// [`Error::Config`] if the adapter cannot run them.
    pub fn choose_kernels(&self, store: &mut Store) -> Result<()> {
        if let Some(variants) = self.kernels {
            if variants == Variants::direct(true) && !store.gpu().has_subgroups_of_8() {
                return Err(Error::Config(format!(
                    "--kernels {variants}: {} has no subgroups of 8 invocations",
                    store.gpu().name()
                )));
            }
            store.set_variants(variants);
        }
        Ok(())
    }

    /// The network and what normalises it, in a line: what the run is about.
    pub fn summary(&self) -> String {
        let Model {
            network,
            norm,
            deconv,
            ..
        } = self.model;
        let mut text = format!("{} with --norm {}", network.name, norm.name());
        if norm == Norm::Deconv {
            let DeconvSettings {
                block,
                sampling_stride,
                refresh,
                refresh_after,
                ..
            } = deconv;
            let after = match refresh_after {
                0 => String::new(),
                step => format!(" after step {step}"),
            };
            text +=
                &format!(", block {block}, sampling stride {sampling_stride}: covariance and D ");
            text += &match refresh {
                1 => "of every step".to_string(),
                _ => format!("of every {refresh} steps{after}, scale and mean of every step"),
            };
        }
        text
    }

    /// Steps of the whole run.
    pub fn total_steps(&self, per_epoch: u64) -> u64 {
        let all = self.epochs.saturating_mul(per_epoch);
        self.steps.unwrap_or(all)
    }

    /// The learning rate's schedule for a run of this length.
    pub fn schedule(&self, per_epoch: u64) -> Schedule {
        match self.options.schedule {
            Some(ScheduleName::Cosine) => Schedule::Cosine {
                t_max: self.total_steps(per_epoch),
                eta_min: 0.0,
            },
            Some(ScheduleName::Step) => Schedule::StepLr {
                step_size: self
                    .options
                    .step_size
                    .unwrap_or(1)
                    .saturating_mul(per_epoch),
                gamma: self.options.gamma.unwrap_or(1.0),
            },
            _ => Schedule::Constant,
        }
    }

    /// What config.toml holds: every option that has a value.
    ///
    /// # Errors
    /// None but bugs.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.options).map_err(|e| Error::Config(e.to_string()))
    }

    /// What a checkpoint says of its run: all options but where it was written to and by how many threads,
    /// so that two runs of one configuration give the same bytes; the steps done, and what the network takes and gives.
    ///
    /// # Errors
    /// None but bugs.
    pub(super) fn metadata(
        &self,
        step: u64,
        interface: &Interface,
    ) -> Result<BTreeMap<String, String>> {
        let options = TrainOptions {
            out: None,
            workers: None,
            ..self.options.clone()
        };
        let config = toml::to_string(&options).map_err(|e| Error::Config(e.to_string()))?;
        let mut metadata =
            BTreeMap::from([("config".into(), config), ("step".into(), step.to_string())]);
        interface.write(&mut metadata)?;
        Ok(metadata)
    }
}

/// Bounds on what sizes a graph or a batch: far above all that is of use, and far below what overflows or never ends.
fn check_sizes(o: &TrainOptions) -> Result<()> {
    let sizes = [
        ("batch-size", o.batch_size, 1 << 20),
        ("image-size", o.image_size, 1 << 16),
        ("n-iter", o.n_iter, 100),
        ("first-n-iter", o.first_n_iter, 100),
        ("sampling-stride", o.sampling_stride, 1 << 16),
        ("block", o.block, 1 << 20),
        ("refresh", o.refresh, 1 << 20),
        ("workers", o.workers, 1 << 10),
    ];
    match sizes
        .iter()
        .find(|(_, size, most)| size.is_some_and(|size| size > *most))
    {
        Some((name, Some(size), most)) => Err(Error::Config(format!(
            "--{name} {size} is more than {most}"
        ))),
        _ => Ok(()),
    }
}

/// The options that are about data, checked.
fn data_options(o: &TrainOptions) -> Result<DataOptions> {
    data::find_set(o.data.as_deref().unwrap_or_default())?;
    let counts = [
        ("image-size", o.image_size),
        ("train-images", o.train_images),
        ("test-images", o.test_images),
        ("workers", o.workers),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(Error::Config(format!("--{name} must be at least 1")));
    }
    let defaults = DataOptions::default();
    Ok(DataOptions {
        image_size: o.image_size.unwrap_or(defaults.image_size),
        augment: o.augment != Some(AugmentName::None),
        train_images: o.train_images,
        test_images: o.test_images,
        workers: o.workers.unwrap_or(0),
        skip_bad: o.skip_bad.unwrap_or(false),
        test_only: false,
        class_names: None,
    })
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
    fn the_command_line_wins_over_the_file_and_both_over_the_defaults() {
        let file: TrainOptions = toml::from_str("lr = 0.5\nbatch-size = 64").unwrap();
        let given = TrainOptions {
            lr: Some(0.25),
            ..TrainOptions::default()
        };
        let config = TrainConfig::resolve(given.over(file)).unwrap();
        assert_eq!((config.lr, config.batch_size, config.seed), (0.25, 64, 1));
        let again: TrainOptions = toml::from_str(&config.to_toml().unwrap()).unwrap();
        let again = TrainConfig::resolve(again).unwrap();
        assert_eq!(again.to_toml().unwrap(), config.to_toml().unwrap());
    }

    #[test]
    fn defaults_that_depend_on_the_network_are_resolved() {
        let resolved = |model: &str, norm| {
            let options = TrainOptions {
                model: Some(String::from(model)),
                norm: Some(norm),
                ..TrainOptions::default()
            };
            let o = TrainConfig::resolve(options).unwrap().options;
            (o.block.unwrap(), o.eps.unwrap(), o.first_n_iter.unwrap())
        };
        let of = |model| resolved(model, NormName::Deconv);
        assert_eq!(of("cnn"), (64, 1e-5, 15));
        assert_eq!(of("vgg11"), (64, 1e-5, 15));
        assert_eq!(of("mlp"), (512, 1e-5, 15));
        let channel = resolved("cnn", NormName::Channel);
        assert_eq!(channel, (32, 1e-2, 15));
    }

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
    fn impossible_values_name_the_option() {
        let refuse = |options: TrainOptions, name: &str| {
            let text = TrainConfig::resolve(options).unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        };
        let none = TrainOptions::default;
        refuse(
            TrainOptions {
                lr: Some(f32::NAN),
                ..none()
            },
            "--lr",
        );
        refuse(
            TrainOptions {
                batch_size: Some(0),
                ..none()
            },
            "--batch-size",
        );
        refuse(
            TrainOptions {
                eps: Some(0.0),
                ..none()
            },
            "--eps",
        );
        let norm = Some(NormName::Batch);
        refuse(
            TrainOptions {
                norm,
                refresh: Some(8),
                ..none()
            },
            "--refresh",
        );
        refuse(
            TrainOptions {
                refresh: Some(0),
                ..none()
            },
            "--refresh",
        );
        refuse(
            TrainOptions {
                block: Some(0),
                ..none()
            },
            "--block",
        );
        refuse(
            TrainOptions {
                momentum: Some(1.0),
                ..none()
            },
            "--momentum",
        );
        refuse(
            TrainOptions {
                model: Some("vgg12".into()),
                ..none()
            },
            "vgg11",
        );
        refuse(
            TrainOptions {
                form: Some(Form::Imagenet),
                ..none()
            },
            "--form",
        );
        refuse(
            TrainOptions {
                width: Some(f32::NAN),
                ..none()
            },
            "--width",
        );
        let nesterov = Some(true);
        refuse(
            TrainOptions {
                momentum: Some(0.0),
                nesterov,
                ..none()
            },
            "--nesterov",
        );
    }
}
