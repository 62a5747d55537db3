//! Training of a network of one's own on data of one's own, a step at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, Tensors};
use super::evaluate::{Evaluation, Evaluator};
use super::graphs::{ImageInput, classes_of};
use super::interface::Interface;
use super::predictor::Forward;
use super::resume::ROLES;
use super::stepper::{Recipe, StepResult, Stepper};
use crate::data::{DataSet, Loader};
use crate::gpu::Gpu;
use crate::graph::{Among, Role, Tensor};
use crate::nn::{Layer, Loss, Mode, RowLoss, is_of_refresh};
use crate::optim::{Optimizer, Schedule, Sgd};
use crate::program::{ExchangeTimes, Store};
use crate::ranks::{OneProcess, Ranks};
use crate::{Error, Result};

/// How a [`Trainer`] trains. Methods change one option each.
#[derive(Clone)]
pub struct TrainerOptions {
    /// Images of a step; 32 by default. Images that fill no batch at the end of an epoch are left out of it.
    pub batch_size: usize,
    /// A step's batch is computed in so many parts, of which each has its own statistics; 1 by default.
    pub accumulate: usize,
    /// For first values, order and augmentation of images; 1 by default.
    pub seed: u64,
    /// Learning rate that the schedule begins with; 0.01 by default.
    pub lr: f32,
    /// Constant by default.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises to that of the schedule; 0 by default.
    pub warmup_steps: u64,
    /// SGD with momentum 0.9 by default.
    pub optimizer: Optimizer,
    /// Softmax cross-entropy by default.
    pub loss: Arc<dyn RowLoss + Send + Sync>,
    /// The processes that train together; this one alone by default. Each is given its part of every batch.
    pub ranks: Arc<dyn Ranks>,
    /// Whether layers take the statistics of all ranks' images, as one process would, or each rank those of its own; not by
    /// default.
    pub sync_stats: bool,
    modes: Modes,
}

/// Which mode a step is run in.
#[derive(Clone)]
struct Modes {
    /// All that may come.
    all: Vec<Mode>,
    of_step: Arc<dyn Fn(u64) -> Mode + Send + Sync>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            accumulate: 1,
            seed: 1,
            lr: 0.01,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            optimizer: Sgd::default().momentum(0.9).into(),
            loss: Arc::new(Loss::default()),
            ranks: Arc::new(OneProcess::default()),
            sync_stats: false,
            modes: Modes {
                all: vec![Mode::Train],
                of_step: Arc::new(|_| Mode::Train),
            },
        }
    }
}

impl TrainerOptions {
    /// Images of a step.
    #[must_use]
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// A step's batch is computed in so many parts, which must divide it: for what does not fit the device's memory.
    #[must_use]
    pub fn accumulate(mut self, parts: usize) -> Self {
        self.accumulate = parts;
        self
    }

    /// The processes that train together, for example those of [`crate::ranks::start`], and whether layers take the statistics
    /// of all their images.
    #[must_use]
    pub fn ranks(mut self, ranks: Arc<dyn Ranks>, sync_stats: bool) -> Self {
        (self.ranks, self.sync_stats) = (ranks, sync_stats);
        self
    }

    /// For first values, order and augmentation of images.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Learning rate that the schedule begins with.
    #[must_use]
    pub fn lr(mut self, lr: f32) -> Self {
        self.lr = lr;
        self
    }

    /// How the learning rate goes on, in steps.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// The update rule: an [`Sgd`] or [`crate::optim::Adam`].
    #[must_use]
    pub fn optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.optimizer = optimizer.into();
        self
    }

    /// The loss: a [`Loss`], or what implements [`RowLoss`].
    #[must_use]
    pub fn loss(mut self, loss: impl RowLoss + Send + Sync + 'static) -> Self {
        self.loss = Arc::new(loss);
        self
    }

    /// A loss of your own as a formula: of logits [N, classes] and labels `[N]`, class numbers as floats, to one number
    /// a row, `[N]`. Rows must not mix.
    #[must_use]
    pub fn loss_fn(
        self,
        loss: impl for<'g> Fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g> + Send + Sync + 'static,
    ) -> Self {
        self.loss(OwnLoss(loss))
    }

    /// In which mode step n, from 0, is run, for layers with [`crate::nn::DeconvOptions::freeze`] or `refresh`: without
    /// this, every step is [`Mode::Train`], in which they take new statistics. `all` are the modes that may come.
    #[must_use]
    pub fn modes(
        mut self,
        all: &[Mode],
        of_step: impl Fn(u64) -> Mode + Send + Sync + 'static,
    ) -> Self {
        self.modes = Modes {
            all: all.to_vec(),
            of_step: Arc::new(of_step),
        };
        self
    }

    /// In step n, from 0, of the first `steps` ones, the learning rate is (n + 1) / `steps` of that of the schedule.
    #[must_use]
    pub fn warmup_steps(mut self, steps: u64) -> Self {
        self.warmup_steps = steps;
        self
    }

    /// Which rank this is.
    pub(super) fn among(&self) -> Among {
        Among {
            rank: self.ranks.rank(),
            ranks: self.ranks.size(),
            sync_stats: self.sync_stats,
        }
    }

    /// Images that are on the device at once.
    pub(super) fn part(&self) -> usize {
        self.batch_size / self.accumulate / self.ranks.size()
    }

    /// The learning rate of step `step`, from 0.
    pub(super) fn lr_at(&self, step: u64) -> f32 {
        let lr = self.schedule.lr(self.lr, step);
        match step < self.warmup_steps {
            true => (f64::from(lr) * (step + 1) as f64 / self.warmup_steps as f64) as f32,
            false => lr,
        }
    }
}

impl fmt::Debug for TrainerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainerOptions")
            .field("batch_size", &self.batch_size)
            .field("accumulate", &self.accumulate)
            .field("seed", &self.seed)
            .field("lr", &self.lr)
            .field("schedule", &self.schedule)
            .field("warmup_steps", &self.warmup_steps)
            .field("optimizer", &self.optimizer)
            .field("modes", &self.modes.all)
            .finish_non_exhaustive()
    }
}

struct OwnLoss<F>(F);

impl<F> RowLoss for OwnLoss<F>
where
    F: for<'g> Fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>,
{
    fn per_row<'g>(&self, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
        (self.0)(logits, labels)
    }
}

/// A network in training: steps, evaluations, predictions, and a file from which it goes on to the same bits.
///
/// The network is any [`Layer`] that makes logits [N, classes] of images [N, C, H, W]. The same seed on the same device
/// gives the same bits. `examples/own_data.rs` is a whole program.
#[derive(Debug)]
pub struct Trainer {
    forward: Forward,
    data: DataSet,
    interface: Interface,
    options: TrainerOptions,
    store: Store,
    stepper: Stepper,
    evaluator: Option<Evaluator>,
    loader: Loader,
    /// Steps given to the device.
    submitted: u64,
    /// Steps whose results were taken.
    done: u64,
}

impl Trainer {
    /// Compiles a training step of `model` on the training images of `data`, with first values by the seed.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch size that makes no batch or that `accumulate` does not divide, or no modes;
    /// [`Error::Shape`] or [`Error::Graph`] if network or loss do not fit the data; as [`crate::program::Program::compile`].
    pub fn new(
        gpu: &Arc<Gpu>,
        model: impl Layer + Send + Sync + 'static,
        data: DataSet,
        options: TrainerOptions,
    ) -> Result<Self> {
        let part = [options.ranks.rank(), options.ranks.size()];
        let loader = data.train_loader_of(part, options.batch_size, options.seed, 0)?;
        let store = Store::new(gpu, options.seed);
        Self::with(store, Arc::new(model), data, loader, 0, options)
    }

    /// As [`Trainer::new`] on an empty store, with a loader of training images from step `start` on.
    pub(super) fn with(
        mut store: Store,
        model: Arc<dyn Layer + Send + Sync>,
        data: DataSet,
        loader: Loader,
        start: u64,
        options: TrainerOptions,
    ) -> Result<Self> {
        let (batch, parts, ranks) = (options.batch_size, options.accumulate, options.ranks.size());
        if parts == 0 || !batch.is_multiple_of(parts * ranks) {
            let among = match ranks {
                1 => String::new(),
                _ => format!(" on each of {ranks} ranks"),
            };
            return Err(Error::Config(format!(
                "a batch of {batch} images cannot be cut into {parts} equal parts{among}"
            )));
        }
        store.set_ranks(Arc::clone(&options.ranks));
        let part = options.part();
        if options.modes.all.is_empty() {
            return Err(Error::Config("no mode is given to train in".into()));
        }
        let interface = Interface::of(&data);
        let given = classes_of(&*model, part, interface.shape)?;
        let classes = data.train.classes;
        if given != classes {
            let message =
                format!("it gives {given} numbers an image; the data has {classes} classes");
            return Err(Error::shape("network", message));
        }
        let recipe = Recipe {
            model: &*model,
            loss: &*options.loss,
            optimizer: &options.optimizer,
            parts,
            among: options.among(),
        };
        let part = ImageInput::of(&data, &data.train, part);
        let stepper = Stepper::new(&mut store, recipe, &part, &options.modes.all)?;
        Ok(Self {
            forward: Forward::new(model, &interface),
            data,
            interface,
            options,
            store,
            stepper,
            evaluator: None,
            loader,
            submitted: start,
            done: start,
        })
    }

    /// One step, waited for.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss is no number, or beyond 1e12; [`Error::Config`] for a mode that
    /// [`TrainerOptions::modes`] did not announce; those of images that cannot be read; what the device reported.
    pub fn step(&mut self) -> Result<StepResult> {
        self.submit(|_| {})?;
        self.mean_of_rest()
    }

    /// The steps that are left of the epoch, several of them under way at a time. Gives their means.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn epoch(&mut self) -> Result<StepResult> {
        let mut sums = (0, 0.0, 0.0);
        loop {
            let ends_epoch = self.submit(|_| {})?;
            self.add_results(ends_epoch, &mut sums)?;
            if ends_epoch {
                return Ok(mean(sums));
            }
        }
    }

    fn mean_of_rest(&mut self) -> Result<StepResult> {
        let mut sums = (0, 0.0, 0.0);
        self.add_results(true, &mut sums)?;
        Ok(mean(sums))
    }

    /// Adds the results of steps that are done: number, losses, shares of hits.
    fn add_results(&mut self, wait: bool, sums: &mut (u32, f64, f64)) -> Result<()> {
        let before = self.done;
        for (step, StepResult { loss, top1 }) in (before..).zip(self.take(wait)?) {
            if !is_sane(f64::from(loss)) {
                return Err(Error::Diverged(format!(
                    "the loss of step {} is {loss:e}: training cannot go on. A smaller learning rate (it was {:?}), or a larger \
                     eps with deconvolution, usually helps; Trainer::load goes back to what was saved",
                    step + 1,
                    self.options.lr_at(step)
                )));
            }
            sums.0 += 1;
            sums.1 += f64::from(loss);
            sums.2 += f64::from(top1);
        }
        Ok(())
    }

    /// Submits a step; whether it is the last one of its epoch. `skipped` is told of images that were left out.
    pub(super) fn submit(&mut self, mut skipped: impl FnMut(&str)) -> Result<bool> {
        let modes = &self.options.modes;
        let mode = (modes.of_step)(self.submitted);
        if !modes.all.contains(&mode) {
            let (step, all) = (self.submitted, &modes.all);
            return Err(Error::Config(format!(
                "step {step} is to be run in mode {mode:?}, which is none of those that \
                 TrainerOptions::modes was given: {all:?}"
            )));
        }
        let Some(batch) = self.loader.next_batch()? else {
            return Err(Error::bug("there are no more training images"));
        };
        batch.skipped.iter().for_each(|why| skipped(why));
        let lr = self.options.lr_at(self.submitted);
        self.stepper.step(&batch, lr, mode)?;
        self.submitted += 1;
        let ends_epoch = batch.is_last;
        self.loader.recycle(batch);
        Ok(ends_epoch)
    }

    /// Results of steps that are done, oldest first; of all that were submitted if `wait`.
    pub(super) fn take(&mut self, wait: bool) -> Result<Vec<StepResult>> {
        let results = self.stepper.take(wait)?;
        self.done += results.len() as u64;
        Ok(results)
    }

    /// Loss and accuracy over all test images, with running statistics. Images that cannot be read are left out if the
    /// data set was opened so.
    ///
    /// # Errors
    /// Those of images that cannot be read; [`Error::Data`] if none can; what the device reported.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        self.average_statistics()?;
        let evaluator = match &mut self.evaluator {
            Some(evaluator) => evaluator,
            none => {
                let size = self.options.part().min(self.data.test.len());
                let model = self.forward.model();
                let loss: &dyn RowLoss = &*self.options.loss;
                let store = &mut self.store;
                none.insert(Evaluator::new(store, model, loss, &self.data, size)?)
            }
        };
        evaluator.run(|_| {})
    }

    /// Logits [N, classes] of `images` [N, C, H, W], both row-major, with running statistics. Values are as those of the
    /// data set before normalisation: floats as they are, bytes divided by 255.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values are no whole images; what the device reported.
    pub fn predict(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        self.forward.predict(&mut self.store, images)
    }

    /// Writes a safetensors file with all that training depends on from here: parameters and running statistics under
    /// PyTorch's names, the optimiser's states, the step, the seed, how images are normalised. The file is whole or, after a
    /// crash, the one from before.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; [`Error::Diverged`] if a value is no number, and nothing is written; what the device
    /// reported.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.average_statistics()?;
        let tensors = checkpoint::from_store(&self.store, &ROLES)?;
        if let Some(name) = not_finite(&tensors) {
            let step = self.submitted;
            return Err(Error::Diverged(format!(
                "{name} has values that are no numbers after step {step}: it is not saved"
            )));
        }
        let mut metadata = BTreeMap::from([
            (STEP.into(), self.submitted.to_string()),
            (SEED.into(), self.options.seed.to_string()),
        ]);
        self.interface.write(&mut metadata)?;
        checkpoint::save(path.as_ref(), &tensors, &metadata)
    }

    /// Takes over what [`Trainer::save`] wrote, its step and its seed too. A trainer of the same network, data and options
    /// then goes on to the same bits as the one that saved.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if the file is damaged, none of a trainer's, of other images, or does not fit the
    /// network or the optimiser: the trainer is then as it was.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (tensors, metadata) = checkpoint::load(path)?;
        let fail = |message: String| Error::checkpoint(path, message);
        let interface = Interface::read(path, &metadata, None)?;
        if interface != self.interface {
            let mine = &self.interface;
            return Err(fail(format!(
                "is of other images: {interface:?}, here {mine:?}"
            )));
        }
        let number = |key: &str| -> Result<u64> {
            let text = metadata.get(key);
            let number = text.and_then(|text| text.parse().ok());
            number.ok_or_else(|| fail(format!("its `{key}` is no number: {text:?}")))
        };
        let (step, seed) = (number(STEP)?, number(SEED)?);
        let part = [self.options.ranks.rank(), self.options.ranks.size()];
        let size = self.options.batch_size;
        let loader = self.data.train_loader_of(part, size, seed, step)?;
        // Steps under way are not to write over it, nor to be counted.
        self.stepper.take(true)?;
        checkpoint::to_store(path, &tensors, &self.store, &ROLES)?;
        self.loader = loader;
        self.options.seed = seed;
        (self.submitted, self.done) = (step, step);
        Ok(())
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.submitted
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.loader.batches_per_epoch() as u64
    }

    /// The images.
    pub fn data(&self) -> &DataSet {
        &self.data
    }

    /// The options. The seed is that of the file that was loaded last.
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// Parameters, running statistics and the optimiser's states by name.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// As [`Trainer::store`], to compile programs for.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Brings running statistics, of which each rank has those of its own images, to their mean over the ranks. Steps between
    /// need nothing of each other's: running values are sums, so this is the same as if every step had averaged.
    pub(super) fn average_statistics(&self) -> Result<()> {
        let ranks = self.options.ranks.size() as f32;
        self.exchange(
            |name, role| role == Role::Statistic || is_of_refresh(name),
            |values| values,
            |sum| sum / ranks,
        )
    }

    /// Gives all ranks the values of the first, but for running statistics: adapters that differ do not round alike.
    pub(super) fn take_from_first(&self) -> Result<()> {
        let is_first = self.options.ranks.rank() == 0;
        self.exchange(
            |name, role| !(role == Role::Statistic || is_of_refresh(name)),
            |values| match is_first {
                true => values,
                false => vec![0.0; values.len()],
            },
            |sum| sum,
        )
    }

    /// Puts what `of_sum` makes of the sums over the ranks, of what they `give`, in the place of the states that are `wanted`.
    fn exchange(
        &self,
        wanted: impl Fn(&str, Role) -> bool,
        give: impl Fn(Vec<f32>) -> Vec<f32>,
        of_sum: impl Fn(f32) -> f32,
    ) -> Result<()> {
        let ranks = &*self.options.ranks;
        if ranks.size() == 1 {
            return Ok(());
        }
        let states = self.store.states();
        for (name, _, _) in
            states.filter(|&(name, _, role)| ROLES.contains(&role) && wanted(name, role))
        {
            let sums = ranks.sum(name, give(self.store.read(name)?))?;
            let values: Vec<f32> = sums.into_iter().map(&of_sum).collect();
            self.store.write(name, &values)?;
        }
        Ok(())
    }

    /// What its steps exchange with the other ranks, in words that are the same on ranks whose exchanges are.
    pub(super) fn exchanges(&self) -> String {
        self.stepper.exchanges()
    }

    /// What its steps have exchanged with the other ranks.
    pub fn exchange_times(&self) -> ExchangeTimes {
        self.stepper.exchange_times()
    }

    /// Bytes of device memory that it takes.
    pub(super) fn size_bytes(&self) -> u64 {
        let evaluation = self.evaluator.as_ref().map_or(0, Evaluator::other_bytes);
        self.store.size_bytes() + self.stepper.other_bytes() + evaluation
    }
}

/// Keys of a checkpoint's metadata.
const STEP: &str = "step";
const SEED: &str = "seed";

/// A loss beyond this is no loss any more, though its bits may be a number.
const ABSURD: f64 = 1e12;

/// Whether a loss is a number that training can go on from.
pub(super) fn is_sane(loss: f64) -> bool {
    loss.abs() < ABSURD
}

/// The first tensor with a value that is not finite.
pub(super) fn not_finite(tensors: &Tensors) -> Option<&str> {
    let bad = |data: &[f32]| data.iter().any(|v| !v.is_finite());
    let found = tensors.iter().find(|(_, tensor)| bad(&tensor.data));
    found.map(|(name, _)| name.as_str())
}

fn mean((count, loss, top1): (u32, f64, f64)) -> StepResult {
    let count = f64::from(count.max(1));
    StepResult {
        loss: (loss / count) as f32,
        top1: (top1 / count) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;
    use crate::gpu::AdapterChoice;
    use crate::nn::{Flatten, Linear, Sequential};

    /// Of four steps an epoch; the rate is halved in each.
    fn trainer(lr: f32) -> Trainer {
        let gpu = Gpu::open(&AdapterChoice {
            adapter: std::env::var("DECORR_ADAPTER").ok(),
            backend: std::env::var("DECORR_BACKEND").ok(),
        })
        .unwrap();
        let images = || Images::new(vec![9_u8; 8 * 4], [1, 2, 2], vec![0; 8], 2).unwrap();
        let set = DataSet::new(images(), images(), &[0.0], &[1.0]).unwrap();
        let model = Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(4, 2));
        let schedule = Schedule::StepLr {
            step_size: 1,
            gamma: 0.5,
        };
        let options = TrainerOptions::default()
            .batch_size(2)
            .lr(lr)
            .schedule(schedule)
            .loss(Loss::HalfSquaredError);
        Trainer::new(&gpu, model, set, options).unwrap()
    }

    /// As its documentation says.
    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let options = TrainerOptions::default();
        let sizes = (options.batch_size, options.accumulate, options.seed);
        assert_eq!(sizes, (32, 1, 1));
        assert_eq!((options.lr, options.warmup_steps), (0.01, 0));
        assert_eq!(options.schedule, Schedule::Constant);
        assert_eq!(options.optimizer, Sgd::default().momentum(0.9).into());
        assert!(!options.sync_stats && options.ranks.size() == 1);
        assert_eq!((options.lr_at(1), options.lr_at(1000)), (0.01, 0.01));
    }

    /// However many results come at once: it is the first loss that is no loss, with the rate of its step.
    #[test]
    fn the_step_that_diverged_is_named() {
        let mut trainer = trainer(1e30);
        for _ in 0..4 {
            trainer.submit(|_| {}).unwrap();
        }
        let error = trainer.mean_of_rest().unwrap_err().to_string();
        assert!(error.contains("loss of step 2 is"), "{error}");
        assert!(error.contains("(it was 5e29)"), "{error}");
        assert_eq!(trainer.done, 4);
    }

    /// Steps are counted on from the file's: what diverges later is named by its place in the whole training.
    #[test]
    fn a_loaded_trainer_counts_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let mut calm = trainer(0.01);
        for _ in 0..3 {
            calm.step().unwrap();
        }
        calm.save(&path).unwrap();
        let mut wild = trainer(1e30);
        wild.submit(|_| {}).unwrap();
        wild.load(&path).unwrap();
        assert_eq!((wild.submitted, wild.done), (3, 3));
        wild.submit(|_| {}).unwrap();
        let error = wild.step().unwrap_err().to_string();
        assert!(error.contains("loss of step 5 is"), "{error}");
        assert!(error.contains("(it was 6.25e28)"), "{error}");
    }
}
