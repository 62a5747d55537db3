//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint;
use super::config::TrainConfig;
use super::evaluate::{Evaluation, Evaluator};
use super::fitting::with_advice;
use super::init::Weights;
use super::interface::Interface;
use super::metrics::{MetricsWriter, Record, Split, read_up_to};
use super::resume::{self, Saved};
use super::run_info::{RUN_INFO, RunInfo, checksum};
use super::stepper::StepResult;
use super::tensorboard::TensorBoard;
use super::trainer::{Trainer, TrainerOptions, is_sane, not_finite};
use crate::data::{DataSet, Loader};
use crate::files::{
    event_files, lock_out, prepare_out, remove_if_empty, remove_if_there, write_atomically,
};
use crate::gpu::Gpu;
use crate::models::{Model, Norm};
use crate::nn::{FreezeCounter, Mode, is_of_refresh};
use crate::program::Store;
use crate::ranks::{OneProcess, Ranks, check_alike};
use crate::{Error, Result};

const CHECKPOINT: &str = "model.safetensors";
const BEST: &str = "best.safetensors";
const CURVES: &str = "curves.png";
const METRICS: &str = "metrics.jsonl";

/// What the loop tells while it runs.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Something that takes a while begins.
    Begin(&'a str),
    /// Bytes of device memory that the run takes, all of it taken before the first step: as planned,
    /// and as the adapter reports, where it does.
    Memory(u64, Option<u64>),
    /// Something the user should know.
    Notice(&'a str),
    /// An image that cannot be read was left out. Of several processes each tells it of its own images.
    Skipped(&'a str),
    /// A training step's results are there.
    Step(Progress),
    /// The test images were evaluated after this many steps.
    Test(u64, Evaluation),
    /// Of several processes, the number and the adapter of the one that takes longest for its part of a step.
    Slowest(usize, &'a str),
}

/// Where training is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Loss of the step.
    pub loss: f32,
    /// Accuracy of the step.
    pub top1: f32,
    /// Since training began, without evaluations.
    pub images_per_second: f64,
    /// Estimated.
    pub seconds_left: f64,
}

/// Where a run begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// At the first step, in an empty folder.
    New,
    /// At the first step, over what an earlier run left in the folder.
    Over,
    /// Where an interrupted run of the same folder was saved.
    Resume(Box<Saved>),
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// Loss of the last training step.
    pub train_loss: f64,
    /// The last evaluation.
    pub test: Evaluation,
    /// Wall time of the training steps in seconds, without evaluations and set-up.
    pub seconds: f64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// How often a training image could not be read and another took its place.
    pub skipped: u64,
    /// The checkpoint.
    pub checkpoint: PathBuf,
}

/// Trains by `config` and writes config.toml, metrics.jsonl, curves.png, model.safetensors, what
/// [`Saved`] reads, and if asked to TensorBoard's event files into its folder. A run that is resumed ends with the
/// same bits as one that was never interrupted. When `stop` becomes true, the run ends as if it were over: saved and
/// evaluated.
///
/// # Errors
/// [`Error::Diverged`] naming the step at which the loss or the weights were no numbers: the
/// checkpoint is then the last one from before. [`Error::Io`] for the folder, [`Error::Data`], and what the device
/// reported.
pub fn train(
    gpu: &Arc<Gpu>,
    config: &TrainConfig,
    start: Start,
    stop: &AtomicBool,
    tell: impl FnMut(Event<'_>),
) -> Result<Outcome> {
    let alone: Arc<dyn Ranks> = Arc::new(OneProcess::default());
    train_among(&alone, gpu, config, start, stop, tell)
}

/// As [`train`], as one of several processes that train one network: each is given its part of every batch. The first alone
/// writes files. All must be alike in options, data and version; adapters may differ.
///
/// # Errors
/// As [`train`]; [`Error::Config`] naming ranks that differ, [`Error::Ranks`] naming one that does not answer. The caller
/// then ends the others by [`Ranks::abort`].
pub fn train_among(
    ranks: &Arc<dyn Ranks>,
    gpu: &Arc<Gpu>,
    config: &TrainConfig,
    start: Start,
    stop: &AtomicBool,
    mut tell: impl FnMut(Event<'_>),
) -> Result<Outcome> {
    let is_first = ranks.rank() == 0;
    let (mut saved, may_be_there) = match start {
        Start::New => (None, false),
        Start::Over => (None, true),
        Start::Resume(saved) => (Some(saved), true),
    };
    let set = open_data(config, saved.as_deref(), &mut tell)?;
    let first = saved.as_ref().map_or(0, |s| s.step);
    let part = [ranks.rank(), ranks.size()];
    refuse_uneven(config, ranks.size())?;
    let loader = set.train_loader_of(part, config.batch_size, config.seed, first)?;
    let per_epoch = loader.batches_per_epoch() as u64;
    let total_steps = config.last_step(per_epoch);
    if saved.is_some() {
        refuse_finished(config, first, total_steps)?;
    }
    let weights = match &config.options.init {
        Some(from) if saved.is_none() => Some(Weights::read(from)?),
        _ => None,
    };
    // All have read by then what the first may write over.
    let adapters = meet(&**ranks, gpu, config, &set, first)?;
    let lock = match is_first {
        true => Some(lock_out(&config.out)?),
        false => None,
    };
    if is_first {
        prepare_out(&config.out, may_be_there)?;
    }

    tell(Event::Begin("compiling"));
    let mut store = Store::new(gpu, config.seed);
    config.choose_kernels(&mut store)?;
    let model = config.model(set.train.classes);
    let modes = model.modes(total_steps, FreezeCounter::new(config.freeze_iter));
    let give = |store: &Store| {
        if let Some(weights) = weights {
            tell(Event::Notice(&weights.give(store)?));
        }
        Ok(())
    };
    let made = compile(
        config,
        ranks,
        store,
        model,
        &modes,
        &set,
        (loader, first),
        give,
    );
    let (trainer, evaluator) = match made {
        Ok(made) => made,
        Err(error) if ranks.size() > 1 => return Err(error),
        Err(error) => {
            drop(lock);
            remove_if_empty(&config.out);
            let error = advised(error, gpu, config, &model, &modes, &set, &mut tell);
            return Err(error);
        }
    };
    let planned = trainer.size_bytes() + evaluator.other_bytes();
    let allocated = gpu.allocated_bytes()?;
    tell(Event::Memory(planned, allocated));
    let records = match &mut saved {
        Some(saved) => restore(config, saved, model.deconv.refresh, &trainer, &mut tell)?,
        None if is_first => remove_earlier(&config.out)?,
        None => Vec::new(),
    };
    if is_first {
        // First: a folder without it is of no run, and a run that is killed here is to go on.
        write_config(config, saved.as_deref(), &mut tell)?;
    }
    // Compiling takes some longer than others, and first values may round differently on other systems.
    let exchanges = trainer.exchanges();
    check_alike(&**ranks, &[("what a step exchanges".into(), exchanges)])?;
    trainer.take_from_first()?;
    let device_bytes = allocated.unwrap_or(planned);
    let before = saved.as_ref().map(|_| config.out.as_path());
    let board = match config.tensorboard && is_first {
        true => Some(TensorBoard::begin(&config.out, first, &model, &set)?),
        false => None,
    };
    let mut run = Run {
        info: RunInfo::begin(gpu, trainer.store(), &set, device_bytes, before),
        best: best_of(&records).filter(|_| config.out.join(BEST).is_file()),
        metrics: match is_first {
            true => Some(MetricsWriter::over(&config.out.join(METRICS), &records)?),
            false => None,
        },
        pace: Pace::new(adapters),
        board,
        config,
        interface: Interface::of(&set),
        trainer,
        evaluator,
        checkpoint: config.out.join(CHECKPOINT),
        saved_at: saved.as_ref().map(|s| s.step),
        tested: tested_at(&records, first, set.test.len()),
        last_loss: last_loss(&records),
        records,
        total_steps,
        per_epoch,
        train_seconds: saved.as_ref().map_or(0.0, |s| s.seconds),
        done: first,
        skipped: 0,
    };
    run.write_info()?;
    run.begin_board()?;
    let result = run.go_on(stop, &mut tell);
    if let Err(Error::Diverged(why)) = &result {
        run.info.diverged = Some(why.clone());
        run.info.end(run.done, run.train_seconds, false);
        // Failing to write it is not the error to report.
        let _ = run.write_info();
    }
    result
}

/// The images, with the classes in the order of the run that was saved. Says what is missing.
fn open_data(
    config: &TrainConfig,
    saved: Option<&Saved>,
    tell: &mut impl FnMut(Event<'_>),
) -> Result<DataSet> {
    let known = saved.and_then(|saved| saved.class_names.clone());
    let set = config.open_data_as(known, false)?;
    for notice in &set.notices {
        tell(Event::Notice(notice));
    }
    Ok(set)
}

/// Refuses a resumed run of `total_steps` steps that has nothing left to do.
fn refuse_finished(config: &TrainConfig, first: u64, total_steps: u64) -> Result<()> {
    // A run that was killed between its last checkpoint and its curves has something left to do.
    let is_finished = first > total_steps || config.out.join(CURVES).exists();
    if first < total_steps || !is_finished {
        return Ok(());
    }
    let longer = match (config.stop_after, config.steps) {
        (Some(stop), _) if stop <= total_steps => "a larger `stop_after` with `resume` makes",
        // They win over epochs.
        (_, Some(_)) => "a larger `steps` with `resume` makes",
        (_, None) => "`epochs` or `steps` with `resume` make",
    };
    Err(Error::Config(format!(
        "{} has all its {total_steps} steps; {longer} it longer",
        config.out.display()
    )))
}

/// Refuses a batch that cannot be divided over the ranks and their parts.
fn refuse_uneven(config: &TrainConfig, ranks: usize) -> Result<()> {
    let (batch, parts) = (config.batch_size, config.accumulate);
    match batch.is_multiple_of(parts * ranks) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "`batch_size` {batch} is the batch of all {ranks} processes together: `accumulate` {parts} times {ranks} does not \
             divide it"
        ))),
    }
}

/// Waits for all ranks, and refuses those that are not alike. The names of their adapters.
fn meet(
    ranks: &dyn Ranks,
    gpu: &Gpu,
    config: &TrainConfig,
    set: &DataSet,
    first: u64,
) -> Result<Vec<String>> {
    if ranks.size() == 1 {
        return Ok(vec![gpu.name().into()]);
    }
    let version = format!("{} {}", env!("CARGO_PKG_VERSION"), env!("DECORR_BUILT_OF"));
    let images = format!("{} and {}", set.train.len(), set.test.len());
    let mut mine = vec![
        ("the version of decorr".into(), version),
        ("the number of images".into(), images),
        (
            "the checksum of the data".into(),
            checksum(set).unwrap_or_default(),
        ),
        ("the first step".into(), first.to_string()),
    ];
    mine.extend(config.of_all_ranks()?);
    check_alike(ranks, &mine)?;
    let adapters = ranks.gather("the ranks' adapters", gpu.name().into())?;
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    Ok(adapters.into_iter().map(text).collect())
}

/// How fast the ranks are.
#[derive(Debug)]
struct Pace {
    /// Their adapters.
    adapters: Vec<String>,
    /// Seconds of their own in a step, smoothed.
    seconds: Vec<f64>,
    /// When the last step began, and how long exchanges had kept it waiting before.
    begin: (Instant, f64),
}

impl Pace {
    fn new(adapters: Vec<String>) -> Self {
        Self {
            seconds: vec![0.0; adapters.len()],
            adapters,
            begin: (Instant::now(), 0.0),
        }
    }

    /// Whether the adapters are not all the same.
    fn differs(&self) -> bool {
        self.adapters.iter().any(|name| *name != self.adapters[0])
    }

    fn slowest(&self) -> Option<(usize, &str)> {
        let by_time = |a: &usize, b: &usize| self.seconds[*a].total_cmp(&self.seconds[*b]);
        let slowest = (0..self.adapters.len()).max_by(by_time)?;
        Some((slowest, &self.adapters[slowest]))
    }
}

/// The trainer whose first step is `first`, the next of the loader, and the evaluator. `give` may change the first values in
/// the store.
#[allow(clippy::too_many_arguments, reason = "all that a run is made of, once")]
fn compile(
    config: &TrainConfig,
    ranks: &Arc<dyn Ranks>,
    store: Store,
    model: Model,
    modes: &[Mode],
    set: &DataSet,
    (loader, first): (Loader, u64),
    give: impl FnOnce(&Store) -> Result<()>,
) -> Result<(Trainer, Evaluator)> {
    let freeze = FreezeCounter::new(config.freeze_iter);
    let options = TrainerOptions::default()
        .batch_size(config.batch_size)
        .accumulate(config.accumulate)
        .ranks(Arc::clone(ranks), config.sync_stats)
        .seed(config.seed)
        .lr(config.lr)
        .schedule(config.schedule(loader.batches_per_epoch() as u64))
        .warmup_steps(config.warmup_steps)
        .optimizer(config.optimizer)
        .loss(config.loss)
        .modes(modes, move |step| model.mode(step, freeze));
    let test_batch = options.part().min(set.test.len());
    let mut trainer = Trainer::with(store, Arc::new(model), set.clone(), loader, first, options)?;
    let store = trainer.store_mut();
    let evaluator = Evaluator::new(store, &model, config.loss, set, test_batch)?;
    give(store)?;
    Ok((trainer, evaluator))
}

/// What kept a run from beginning; if it is memory, with the largest batch that fits.
fn advised(
    error: Error,
    gpu: &Arc<Gpu>,
    config: &TrainConfig,
    model: &Model,
    modes: &[Mode],
    set: &DataSet,
    tell: &mut impl FnMut(Event<'_>),
) -> Error {
    if !matches!(error, Error::Limit(_) | Error::OutOfMemory(_)) {
        return error;
    }
    tell(Event::Begin("looking for the largest batch that fits"));
    with_advice(error, gpu, model, config, set, modes).unwrap_or_else(|other| other)
}

/// Brings the trainer to where the run was saved. The records up to there.
fn restore(
    config: &TrainConfig,
    saved: &mut Saved,
    refresh: usize,
    trainer: &Trainer,
    tell: &mut impl FnMut(Event<'_>),
) -> Result<Vec<Record>> {
    if refresh == 1 {
        // A run that goes on with D of every step needs none of an earlier one.
        saved.tensors.retain(|name, _| !is_of_refresh(name));
    }
    let roles = &resume::ROLES;
    checkpoint::to_store(&saved.path, &saved.tensors, trainer.store(), roles)?;
    // Steps after it will be done, and logged, again.
    let (records, trouble) = read_up_to(&config.out.join(METRICS), saved.step, config.log_every)?;
    if let Some(trouble) = trouble {
        tell(Event::Notice(&trouble));
    }
    Ok(records)
}

/// What an earlier run left in the folder must not be taken for this one's, which has no records yet.
fn remove_earlier(out: &Path) -> Result<Vec<Record>> {
    for name in [CHECKPOINT, CURVES, BEST, RUN_INFO] {
        remove_if_there(&out.join(name))?;
    }
    event_files(out)
        .iter()
        .try_for_each(|path| remove_if_there(path))?;
    resume::remove_all(out)?;
    Ok(Vec::new())
}

/// Writes config.toml, and says how it differs from that of the run that was saved.
fn write_config(
    config: &TrainConfig,
    saved: Option<&Saved>,
    tell: &mut impl FnMut(Event<'_>),
) -> Result<()> {
    let written = config.out.join("config.toml");
    if let Some(saved) = saved {
        let old = (saved.options.batch_size, saved.options.train_images);
        if old != (config.options.batch_size, config.options.train_images) {
            tell(Event::Notice(
                "an epoch has another number of steps now: epochs are counted anew, as if it had always had it",
            ));
        }
        if let Some(notice) = saved.edited(&written) {
            tell(Event::Notice(&notice));
        }
    }
    write_atomically(&written, config.to_toml()?.as_bytes())
}

/// The state of a run.
struct Run<'a> {
    config: &'a TrainConfig,
    interface: Interface,
    trainer: Trainer,
    evaluator: Evaluator,
    /// Of the first rank.
    metrics: Option<MetricsWriter>,
    pace: Pace,
    board: Option<TensorBoard>,
    records: Vec<Record>,
    checkpoint: PathBuf,
    info: RunInfo,
    saved_at: Option<u64>,
    /// Highest accuracy of an evaluation, whose weights are in best.safetensors.
    best: Option<f64>,
    /// After which step, and what came of it.
    tested: Option<(u64, Evaluation)>,
    total_steps: u64,
    per_epoch: u64,
    /// Until the clock was last started.
    train_seconds: f64,
    done: u64,
    skipped: u64,
    last_loss: f64,
}

impl Run<'_> {
    /// What a new event file begins with: the run as it is at its first step, of which TensorBoard drops what an earlier file
    /// has.
    fn begin_board(&mut self) -> Result<()> {
        if let Some(board) = &mut self.board {
            let mut last = self.records.iter().filter(|r| r.step == self.done);
            last.try_for_each(|record| board.log(record))?;
            board.show(self.done, self.trainer.store())?;
        }
        Ok(())
    }

    /// All steps that are left, with what is due in between, until `stop`.
    fn go_on(&mut self, stop: &AtomicBool, tell: &mut impl FnMut(Event<'_>)) -> Result<Outcome> {
        let mut clock = Instant::now();
        self.pace.begin.0 = clock;
        while self.trainer.steps() < self.total_steps && !self.is_to_stop(stop, tell)? {
            let skipped = &mut self.skipped;
            let ends_epoch = self.trainer.submit(|why| {
                *skipped += 1;
                tell(Event::Skipped(&format!("skipped: {why}")));
            })?;
            let submitted = self.trainer.steps();
            self.take(false, &clock, tell)?;
            let is_due = |every: u64| submitted.is_multiple_of(every);
            let save =
                ends_epoch || submitted == self.total_steps || is_due(self.config.save_every);
            let test = self.config.eval_every.is_some_and(is_due)
                || ends_epoch
                || submitted == self.total_steps;
            if save || test {
                self.take(true, &clock, tell)?;
                self.train_seconds += clock.elapsed().as_secs_f64();
                self.align()?;
                // Before saving: a network that gives no numbers is not to replace one that does.
                if test {
                    self.test(tell)?;
                }
                if save {
                    self.save()?;
                }
                clock = Instant::now();
                self.pace.begin.0 = clock;
            }
        }
        self.take(true, &clock, tell)?;
        self.finish(&clock, tell)
    }

    /// Whether any rank was told to stop: all end after the same step. Ranks also tell how long their last step took.
    fn is_to_stop(&mut self, stop: &AtomicBool, tell: &mut impl FnMut(Event<'_>)) -> Result<bool> {
        let mine = stop.load(Ordering::Relaxed);
        let ranks = Arc::clone(&self.trainer.options().ranks);
        if ranks.size() == 1 {
            return Ok(mine);
        }
        let shown = self.trainer.exchange_times().shown;
        let (begin, shown_before) = self.pace.begin;
        let seconds = begin.elapsed().as_secs_f64() - (shown - shown_before);
        let mut values = vec![0.0; ranks.size() + 1];
        values[ranks.rank()] = seconds as f32;
        values[ranks.size()] = f32::from(u8::from(mine));
        let sums = ranks.sum("whether to stop", values)?;
        for (known, new) in self.pace.seconds.iter_mut().zip(&sums) {
            *known = 0.9 * *known + 0.1 * f64::from(*new);
        }
        if let Some((rank, adapter)) = self.pace.slowest() {
            tell(Event::Slowest(rank, adapter));
        }
        self.pace.begin = (Instant::now(), shown);
        Ok(sums[ranks.size()] > 0.0)
    }

    /// Before what is saved and tested: the ranks become one network again. Waits for those that are late.
    fn align(&self) -> Result<()> {
        let ranks = &self.trainer.options().ranks;
        if ranks.size() > 1 {
            ranks.gather("the end of an evaluation", Vec::new())?;
        }
        self.trainer.average_statistics()?;
        match self.pace.differs() {
            true => self.trainer.take_from_first(),
            false => Ok(()),
        }
    }

    fn is_first(&self) -> bool {
        self.metrics.is_some()
    }

    fn write_info(&self) -> Result<()> {
        match self.is_first() {
            true => self.info.write(&self.config.out),
            false => Ok(()),
        }
    }

    /// Takes the results of steps in order, of all that were submitted if `wait`: checks, logs, tells.
    fn take(
        &mut self,
        wait: bool,
        clock: &Instant,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<()> {
        for StepResult { loss, top1 } in self.trainer.take(wait)? {
            let step = self.done;
            self.done += 1;
            let seconds = self.train_seconds + clock.elapsed().as_secs_f64();
            let finite = |v: f32| v.is_finite().then_some(f64::from(v));
            let is_last = self.done == self.total_steps;
            let is_logged = self.done == 1 || self.done.is_multiple_of(self.config.log_every);
            let is_absurd = !is_sane(f64::from(loss));
            if is_logged || is_last || is_absurd {
                self.log(Record {
                    split: Split::Train,
                    step: self.done,
                    epoch: step / self.per_epoch,
                    loss: finite(loss),
                    top1: finite(top1),
                    top5: None,
                    lr: Some(self.trainer.options().lr_at(step)),
                    seconds,
                })?;
            }
            if is_absurd {
                let what = format!("the loss of step {} is {loss:e}", self.done);
                return Err(self.diverged(&what));
            }
            self.last_loss = f64::from(loss);
            let rate = self.done as f64 / seconds;
            tell(Event::Step(Progress {
                step: self.done,
                total_steps: self.total_steps,
                epoch: step / self.per_epoch,
                loss,
                top1,
                images_per_second: rate * self.config.batch_size as f64,
                seconds_left: (self.total_steps - self.done) as f64 / rate,
            }));
        }
        Ok(())
    }

    fn diverged(&self, what: &str) -> Error {
        // How it came about is worth a look; failing to draw it is not the error to report.
        let _ = self.draw();
        let kept = match self.saved_at {
            Some(step) => format!(
                "The checkpoint {} is that of step {step}",
                self.checkpoint.display()
            ),
            None => "No checkpoint had been written yet".to_string(),
        };
        let advice = advice(self.config, self.done);
        Error::Diverged(format!("{what}: training stopped. {kept}. {advice}"))
    }

    fn log(&mut self, record: Record) -> Result<()> {
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&record)?;
        }
        if let Some(board) = &mut self.board {
            board.log(&record)?;
        }
        self.records.push(record);
        Ok(())
    }

    /// curves.png, if decorr has the feature `draw`.
    fn draw(&self) -> Result<()> {
        #[cfg(feature = "draw")]
        if self.is_first() {
            super::curves::draw_run(&self.config.out.join(CURVES), self.config, &self.records)?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        if self.saved_at == Some(self.done) {
            return Ok(());
        }
        let tensors = checkpoint::from_store(self.trainer.store(), &checkpoint::MODEL)?;
        // The loss of a step is that of the weights before it: they may be ruined since.
        if let Some(name) = not_finite(&tensors) {
            let what = format!(
                "{name} has values that are no numbers after step {}",
                self.done
            );
            return Err(self.diverged(&what));
        }
        let Some(metrics) = &self.metrics else {
            self.saved_at = Some(self.done);
            return Ok(());
        };
        let metadata = self.config.metadata(self.done, &self.interface)?;
        metrics.sync()?;
        if let Some(board) = &self.board {
            board.sync()?;
        }
        checkpoint::save(&self.checkpoint, &tensors, &metadata)?;
        Saved::write(
            self.config,
            &self.interface,
            self.trainer.store(),
            self.done,
            self.train_seconds,
        )?;
        self.saved_at = Some(self.done);
        Ok(())
    }

    fn test(&mut self, tell: &mut impl FnMut(Event<'_>)) -> Result<Evaluation> {
        tell(Event::Begin("evaluating"));
        let evaluation = self
            .evaluator
            .run(|skipped| tell(Event::Skipped(&format!("skipped in the test: {skipped}"))))?;
        let finite = |v: f64| v.is_finite().then_some(v);
        self.log(Record {
            split: Split::Test,
            step: self.done,
            epoch: self.done.saturating_sub(1) / self.per_epoch,
            loss: finite(evaluation.loss),
            top1: finite(evaluation.top1),
            top5: evaluation.top5,
            lr: None,
            seconds: self.train_seconds,
        })?;
        self.tested = Some((self.done, evaluation));
        tell(Event::Test(self.done, evaluation));
        if !is_sane(evaluation.loss) {
            let what = format!(
                "the test loss after step {} is {:e}",
                self.done, evaluation.loss
            );
            return Err(self.diverged(&what));
        }
        if let Some(board) = &mut self.board {
            board.show(self.done, self.trainer.store())?;
        }
        if self.config.keep_best && self.best.is_none_or(|best| evaluation.top1 > best) {
            if self.is_first() {
                let tensors = checkpoint::from_store(self.trainer.store(), &checkpoint::MODEL)?;
                let metadata = self.config.metadata(self.done, &self.interface)?;
                checkpoint::save(&self.config.out.join(BEST), &tensors, &metadata)?;
            }
            self.best = Some(evaluation.top1);
        }
        Ok(evaluation)
    }

    fn finish(&mut self, clock: &Instant, tell: &mut impl FnMut(Event<'_>)) -> Result<Outcome> {
        let interrupted = self.done < self.total_steps;
        if interrupted {
            self.train_seconds += clock.elapsed().as_secs_f64();
            self.align()?;
        }
        let test = match self.tested {
            Some((step, evaluation)) if step == self.done => evaluation,
            _ => self.test(tell)?,
        };
        self.save()?;
        self.draw()?;
        self.info.end(self.done, self.train_seconds, !interrupted);
        self.write_info()?;
        Ok(Outcome {
            steps: self.done,
            train_loss: self.last_loss,
            test,
            seconds: self.train_seconds,
            interrupted,
            skipped: self.skipped_by_all()?,
            checkpoint: self.checkpoint.clone(),
        })
    }

    /// Images that were left out of training, over all ranks.
    fn skipped_by_all(&self) -> Result<u64> {
        let ranks = &self.trainer.options().ranks;
        let sums = ranks.sum("images that were skipped", vec![self.skipped as f32])?;
        Ok(sums.iter().map(|&sum| sum as u64).sum())
    }
}

/// What usually helps where `done` steps end in no numbers.
fn advice(config: &TrainConfig, done: u64) -> String {
    let model = config.model(0);
    let (n_iter, is_deconv) = (model.deconv.n_iter, model.norm == Norm::Deconv);
    match done {
        // Weights and rate have no part in it yet.
        0 | 1 if is_deconv => format!(
            "D did not converge on the first batch: a smaller `n_iter` (it was {n_iter}) or a larger `eps` usually helps"
        ),
        _ => format!(
            "A smaller `lr` (it was {}), or a larger `eps` with deconvolution, usually helps",
            config.lr
        ),
    }
}

/// The evaluation that was logged after `step`.
fn tested_at(records: &[Record], step: u64, images: usize) -> Option<(u64, Evaluation)> {
    let logged = records
        .iter()
        .find(|r| r.split == Split::Test && r.step == step)?;
    let evaluation = Evaluation {
        loss: logged.loss?,
        top1: logged.top1?,
        top5: logged.top5,
        images,
    };
    Some((step, evaluation))
}

/// The highest accuracy that was logged.
fn best_of(records: &[Record]) -> Option<f64> {
    let tests = records.iter().filter(|r| r.split == Split::Test);
    tests.filter_map(|r| r.top1).max_by(f64::total_cmp)
}

/// Of the last training step that was logged.
fn last_loss(records: &[Record]) -> f64 {
    let mut train = records.iter().rev().filter(|r| r.split == Split::Train);
    train.next().and_then(|r| r.loss).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::train::TrainOptions;

    fn config(out: &Path, more: &str) -> TrainConfig {
        let options: TrainOptions = toml::from_str(more).unwrap();
        let out = Some(out.to_path_buf());
        TrainConfig::resolve(TrainOptions { out, ..options }).unwrap()
    }

    /// A run that was saved after its last step, but has no curves yet, is not.
    #[test]
    fn a_finished_run_is_refused_with_what_makes_it_longer() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |more: &str, first| {
            let error = refuse_finished(&config(dir.path(), more), first, 60).err();
            error.map_or(String::new(), |error| error.to_string())
        };
        assert_eq!(
            (refused("", 59), refused("", 60)),
            (String::new(), String::new())
        );
        let epochs = "has all its 60 steps; `epochs` or `steps` with `resume` make it longer";
        assert!(refused("", 61).ends_with(epochs), "{}", refused("", 61));
        fs::write(dir.path().join(CURVES), "").unwrap();
        assert_eq!(refused("", 59), "");
        assert!(refused("", 60).ends_with(epochs), "{}", refused("", 60));
        let steps = "has all its 60 steps; a larger `steps` with `resume` makes it longer";
        assert!(refused("steps = 60", 60).ends_with(steps));
    }

    #[test]
    fn a_resumed_run_whose_epochs_have_another_length_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let old = config(dir.path(), "batch-size = 16\ntrain-images = 64");
        let saved = Saved {
            path: PathBuf::new(),
            step: 1,
            seconds: 1.0,
            options: old.options,
            tensors: checkpoint::Tensors::new(),
            class_names: None,
            damaged: Vec::new(),
        };
        for (now, is_told) in [
            ("batch-size = 16\ntrain-images = 64", false),
            (
                "batch-size = 16\ntrain-images = 64\nlr = 0.5\nepochs = 9",
                false,
            ),
            ("batch-size = 32\ntrain-images = 64", true),
            ("batch-size = 16\ntrain-images = 128", true),
            ("batch-size = 16", true),
        ] {
            let mut told = Vec::new();
            let mut tell = |event: Event<'_>| {
                if let Event::Notice(text) = event {
                    told.push(text.to_string());
                }
            };
            let config = config(dir.path(), now);
            // An edited file is told of, too.
            let _ = fs::remove_file(dir.path().join("config.toml"));
            write_config(&config, Some(&saved), &mut tell).unwrap();
            let has = told
                .iter()
                .any(|text| text.contains("another number of steps"));
            assert_eq!(
                (told.len(), has),
                (usize::from(is_told), is_told),
                "{now}: {told:?}"
            );
            let written = fs::read_to_string(dir.path().join("config.toml")).unwrap();
            assert_eq!(written, config.to_toml().unwrap());
        }
    }

    #[test]
    fn what_a_resumed_run_takes_from_its_log_is_of_its_step() {
        let record = |split, step, loss| Record {
            split,
            step,
            epoch: 0,
            loss: Some(loss),
            top1: Some(loss / 8.0),
            top5: None,
            lr: None,
            seconds: 0.0,
        };
        let records = [
            record(Split::Train, 4, 4.0),
            record(Split::Test, 4, 3.0),
            record(Split::Train, 8, 2.0),
            record(Split::Test, 8, 1.0),
        ];
        let evaluation = Evaluation {
            loss: 1.0,
            top1: 0.125,
            top5: None,
            images: 70,
        };
        assert_eq!(tested_at(&records, 8, 70), Some((8, evaluation)));
        assert_eq!(tested_at(&records[..3], 8, 70), None);
        assert_eq!((last_loss(&records), last_loss(&records[..2])), (2.0, 4.0));
        assert!(last_loss(&[]).is_nan());
    }

    #[test]
    fn the_advice_is_about_d_where_the_rate_had_no_part_in_it() {
        let of = |norm: &str, done| {
            let text = format!("norm = '{norm}'\nlr = 0.375\nn-iter = 7\nfirst-n-iter = 9");
            advice(&config(Path::new("out"), &text), done)
        };
        let rate =
            "A smaller `lr` (it was 0.375), or a larger `eps` with deconvolution, usually helps";
        let d = "D did not converge on the first batch: a smaller `n_iter` (it was 7) or a larger `eps` usually helps";
        assert_eq!([0, 1, 2].map(|done| of("deconv", done)), [d, d, rate]);
        for norm in ["batch", "channel", "none"] {
            assert_eq!([0, 1].map(|done| of(norm, done)), [rate; 2], "{norm}");
        }
    }
}
