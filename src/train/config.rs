//! What the options of a run come to: defaults and presets filled in, checked, as the values that training takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::interface::Interface;
use super::options::{AugmentName, LossName, OptimizerName, ScheduleName, TrainOptions};
use super::presets::preset;
use crate::data::{self, DataOptions, DataSet};
use crate::graph::op::Variants;
use crate::models::{DeconvSettings, Model, Norm};
use crate::nn::Loss;
use crate::optim::{Adam, Optimizer, Rule, Schedule, Sgd};
use crate::passes::check_variant;
use crate::program::Store;
use crate::{Error, Result};

/// Options that say where and how a run is run, and change nothing of what comes of it.
pub(super) const OF_PLACE: [&str; 3] = ["out", "workers", "rank-timeout"];

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
    /// Step after which it stops, though the schedule goes on.
    pub stop_after: Option<u64>,
    /// Steps in which the learning rate rises.
    pub warmup_steps: u64,
    /// Images of a step.
    pub batch_size: usize,
    /// Parts of a step, see [`super::accumulation_step`].
    pub accumulate: usize,
    /// Whether layers take the statistics of all ranks' images.
    pub sync_stats: bool,
    /// Base learning rate.
    pub lr: f32,
    /// Seed.
    pub seed: u64,
    /// Steps between logged ones.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between evaluations, beside those at the end of an epoch.
    pub eval_every: Option<u64>,
    /// Whether the best weights are kept.
    pub keep_best: bool,
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
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
        o.check()?;
        let model = model(&mut o)?;
        let TrainOptions {
            data: Some(data),
            epochs: Some(epochs),
            batch_size: Some(batch_size),
            accumulate: Some(accumulate),
            sync_stats: Some(sync_stats),
            lr: Some(lr),
            seed: Some(seed),
            log_every: Some(log_every),
            save_every: Some(save_every),
            freeze_iter: Some(freeze_iter),
            warmup_steps: Some(warmup_steps),
            keep_best: Some(keep_best),
            tensorboard: Some(tensorboard),
            out: Some(out),
            ..
        } = o.clone()
        else {
            return Err(no_default());
        };
        rule(batch_size.is_multiple_of(accumulate), || {
            format!("`accumulate` {accumulate} does not divide `batch_size` {batch_size}")
        })?;
        Ok(Self {
            data,
            data_options: data_options(&o)?,
            model,
            loss: loss(&o)?,
            optimizer: optimizer(&o)?,
            epochs,
            steps: o.steps,
            stop_after: o.stop_after,
            warmup_steps,
            batch_size,
            accumulate,
            sync_stats,
            lr,
            seed,
            log_every,
            save_every,
            eval_every: o.eval_every,
            keep_best,
            tensorboard,
            freeze_iter,
            kernels: o.kernels.as_deref().map(str::parse).transpose()?,
            out,
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
            check_variant(variants, store.gpu())?;
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
        let mut text = format!("{} with `norm` {}", network.name, norm.name());
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

    /// Steps of the whole run, which the schedule is for.
    pub fn total_steps(&self, per_epoch: u64) -> u64 {
        let all = self.epochs.saturating_mul(per_epoch);
        self.steps.unwrap_or(all)
    }

    /// Steps that are done of it.
    pub fn last_step(&self, per_epoch: u64) -> u64 {
        let all = self.total_steps(per_epoch);
        self.stop_after.map_or(all, |stop| stop.min(all))
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

    /// As [`TrainConfig::to_toml`], to be compared.
    ///
    /// # Errors
    /// None but bugs.
    pub fn to_table(&self) -> Result<toml::Table> {
        toml::Table::try_from(&self.options).map_err(|e| Error::Config(e.to_string()))
    }

    /// What must be the same on all ranks of a run: its options, but for those of the place and of the adapter.
    pub(super) fn of_all_ranks(&self) -> Result<Vec<(String, String)>> {
        let table = self.to_table()?.into_iter();
        let of_rank =
            |name: &str| OF_PLACE.contains(&name) || ["kernels", "data-dir"].contains(&name);
        let options = table.filter(|(name, _)| !of_rank(name));
        let line = |(name, value): (String, toml::Value)| {
            (format!("`{}`", name.replace('-', "_")), value.to_string())
        };
        Ok(options.map(line).collect())
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
            rank_timeout: None,
            ..self.options.clone()
        };
        let config = toml::to_string(&options).map_err(|e| Error::Config(e.to_string()))?;
        let mut metadata =
            BTreeMap::from([("config".into(), config), ("step".into(), step.to_string())]);
        interface.write(&mut metadata)?;
        Ok(metadata)
    }
}

/// Refuses options that do not go together.
fn rule(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::Config(message())),
    }
}

/// An option is read as if it had a default.
fn no_default() -> Error {
    Error::bug("an option without a value")
}

/// The network but for its number of classes. Options whose defaults depend on it are given them.
fn model(o: &mut TrainOptions) -> Result<Model> {
    let (Some(name), Some(norm)) = (&o.model, o.norm) else {
        return Err(no_default());
    };
    let model = Model::new(name, norm, 0)?;
    let DeconvSettings { block, eps, .. } = model.deconv;
    o.block.get_or_insert(block);
    o.eps.get_or_insert(eps);
    let TrainOptions {
        width: Some(width),
        dropout: Some(dropout),
        block: Some(block),
        eps: Some(eps),
        n_iter: Some(n_iter),
        first_n_iter: Some(first_n_iter),
        stat_momentum: Some(momentum),
        sampling_stride: Some(sampling_stride),
        refresh: Some(refresh),
        refresh_after: Some(refresh_after),
        form,
        ..
    } = *o
    else {
        return Err(no_default());
    };
    let network = model.network;
    let has_form = form.is_none_or(|form| network.forms.contains(&form));
    rule(has_form, || {
        format!(
            "`model` {} has no forms to choose from by `form`",
            network.name
        )
    })?;
    rule(refresh == 1 || norm == Norm::Deconv, || {
        format!("`refresh` {refresh} is for `norm` deconv")
    })?;
    rule(refresh_after == 0 || refresh > 1, || {
        "`refresh_after` is for `refresh` above 1".into()
    })?;
    Ok(Model {
        form,
        width,
        dropout,
        deconv: DeconvSettings {
            block,
            eps,
            n_iter,
            first_n_iter,
            momentum,
            sampling_stride,
            refresh,
            refresh_after,
        },
        ..model
    })
}

fn loss(o: &TrainOptions) -> Result<Loss> {
    match (o.loss, o.label_smoothing) {
        (Some(LossName::Ce), Some(smoothing)) => Ok(Loss::CrossEntropy { smoothing }),
        (Some(LossName::Bce), _) => Ok(Loss::Logistic),
        (Some(LossName::L2), _) => Ok(Loss::HalfSquaredError),
        _ => Err(no_default()),
    }
}

fn optimizer(o: &TrainOptions) -> Result<Optimizer> {
    let TrainOptions {
        optimizer: Some(optimizer),
        momentum: Some(momentum),
        nesterov: Some(nesterov),
        weight_decay: Some(weight_decay),
        ..
    } = *o
    else {
        return Err(no_default());
    };
    rule(!nesterov || momentum > 0.0, || {
        "`nesterov` needs a `momentum` above 0".into()
    })?;
    let rule = match optimizer {
        OptimizerName::Sgd => Rule::Sgd(Sgd {
            momentum,
            weight_decay,
            nesterov,
        }),
        OptimizerName::Adam => Rule::Adam(Adam {
            weight_decay,
            ..Adam::default()
        }),
    };
    Ok(Optimizer {
        rule,
        clip_grad_norm: o.clip_grad_norm,
    })
}

/// What is taken of the data set, and how it is loaded.
fn data_options(o: &TrainOptions) -> Result<DataOptions> {
    let TrainOptions {
        data: Some(data),
        augment: Some(augment),
        image_size: Some(image_size),
        skip_bad: Some(skip_bad),
        ..
    } = o
    else {
        return Err(no_default());
    };
    data::find_set(data)?;
    Ok(DataOptions {
        image_size: *image_size,
        augment: *augment != AugmentName::None,
        train_images: o.train_images,
        test_images: o.test_images,
        workers: o.workers.unwrap_or(0),
        skip_bad: *skip_bad,
        test_only: false,
        class_names: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Form;

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
        let of = |model| resolved(model, Norm::Deconv);
        assert_eq!(of("cnn"), (64, 1e-5, 15));
        assert_eq!(of("vgg11"), (64, 1e-5, 15));
        assert_eq!(of("mlp"), (512, 1e-5, 15));
        let channel = resolved("cnn", Norm::Channel);
        assert_eq!(channel, (32, 1e-2, 15));
    }

    #[test]
    fn impossible_values_name_the_option() {
        type Give = fn(&mut TrainOptions);
        let cases: [(&str, Give); 14] = [
            ("`lr` NaN", |o| o.lr = Some(f32::NAN)),
            ("`batch_size`", |o| o.batch_size = Some(0)),
            ("`batch_size`", |o| o.batch_size = Some(usize::MAX)),
            ("`accumulate` 3", |o| o.accumulate = Some(3)),
            ("`eps`", |o| o.eps = Some(0.0)),
            ("`refresh`", |o| {
                (o.norm, o.refresh) = (Some(Norm::Batch), Some(8));
            }),
            ("`refresh`", |o| o.refresh = Some(0)),
            ("`refresh_after`", |o| o.refresh_after = Some(1)),
            ("`block`", |o| o.block = Some(0)),
            ("`momentum`", |o| o.momentum = Some(1.0)),
            ("vgg11", |o| o.model = Some("vgg12".into())),
            ("`form`", |o| o.form = Some(Form::Imagenet)),
            ("`width`", |o| o.width = Some(f32::NAN)),
            ("`nesterov`", |o| {
                (o.momentum, o.nesterov) = (Some(0.0), Some(true));
            }),
        ];
        for (name, give) in cases {
            let mut options = TrainOptions::default();
            give(&mut options);
            let text = TrainConfig::resolve(options).unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn the_line_about_a_run_says_how_it_is_normalised() {
        let line = |text: &str| {
            let options = toml::from_str(text).unwrap();
            TrainConfig::resolve(options).unwrap().summary()
        };
        assert_eq!(
            line("model = 'mlp'\nnorm = 'batch'"),
            "mlp with `norm` batch"
        );
        let deconv = "block = 16\nsampling-stride = 2\n";
        let begins =
            "cnn with `norm` deconv, block 16, sampling stride 2: covariance and D of every";
        for (refresh, ends) in [
            ("", "step"),
            ("refresh = 8", "8 steps, scale and mean of every step"),
            (
                "refresh = 8\nrefresh-after = 30",
                "8 steps after step 30, scale and mean of every step",
            ),
        ] {
            assert_eq!(
                line(&format!("{deconv}{refresh}")),
                format!("{begins} {ends}")
            );
        }
    }

    #[test]
    fn a_checkpoint_says_all_of_its_run_but_its_folder_and_its_threads() {
        let text = "out = 'there'\nworkers = 3\nlr = 0.25\nseed = 9\ndata-dir = 'here'";
        let config = TrainConfig::resolve(toml::from_str(text).unwrap()).unwrap();
        let interface = Interface {
            shape: [1, 2, 3],
            mean: vec![0.5],
            std: vec![2.0],
            class_names: vec!["a".into(), "b".into()],
        };
        let metadata = config.metadata(17, &interface).unwrap();
        let mut wanted: toml::Table = toml::from_str(&config.to_toml().unwrap()).unwrap();
        for place in OF_PLACE {
            assert!(wanted.remove(place).is_some(), "{place}");
        }
        let found: toml::Table = toml::from_str(&metadata["config"]).unwrap();
        assert_eq!(found, wanted);
        let wanted = [
            ("classes", "[\"a\",\"b\"]"),
            ("input_shape", "[1,2,3]"),
            ("mean", "[0.5]"),
            ("std", "[2.0]"),
            ("step", "17"),
        ];
        for (key, value) in wanted {
            assert_eq!(metadata[key], value, "{key}");
        }
        // And `config` and the version.
        assert_eq!(metadata.len(), wanted.len() + 2);
    }
}
