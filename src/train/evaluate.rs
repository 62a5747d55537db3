//! Loss and accuracy over a whole split, with running statistics.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::config::TrainConfig;
use super::graphs::{ImageInput, MANY_CLASSES, evaluation_step};
use super::options::TrainOptions;
use super::stepper::input_of;
use super::trained::Trained;
use crate::data::{self, DataSet};
use crate::gpu::Gpu;
use crate::nn::{Layer, RowLoss};
use crate::program::{CompileOptions, Input, Outputs, Program, Store};
use crate::ranks::Ranks;
use crate::{Error, Result};

/// Means over all images.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Loss.
    pub loss: f64,
    /// Share of hits.
    pub top1: f64,
    /// Share of images whose class is among the five largest logits, with 100 classes or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Number of images.
    pub images: usize,
}

impl fmt::Display for Evaluation {
    /// `loss 0.3125, top1 0.9000`, and with many classes `, top5 0.9900`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {:.4}, top1 {:.4}", self.loss, self.top1)?;
        match self.top5 {
            Some(top5) => write!(f, ", top5 {top5:.4}"),
            None => Ok(()),
        }
    }
}

/// A compiled evaluation step and the images to run it on.
#[derive(Debug)]
pub(crate) struct Evaluator {
    program: Program,
    data: DataSet,
    batch_size: usize,
    ranks: Arc<dyn Ranks>,
}

impl Evaluator {
    /// Compiles `model` for the test images of `data` and the parameters in `store`.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub(super) fn new(
        store: &mut Store,
        model: &dyn Layer,
        loss: impl RowLoss,
        data: &DataSet,
        batch_size: usize,
    ) -> Result<Self> {
        let images = ImageInput::of(data, &data.test, batch_size);
        let graph = evaluation_step(model, loss, images)?;
        Ok(Self {
            program: Program::compile(&graph, store, CompileOptions::default())?,
            data: data.clone(),
            batch_size,
            ranks: Arc::clone(store.ranks()),
        })
    }

    /// Bytes that its program takes beside what it shares in the store.
    pub(super) fn other_bytes(&self) -> u64 {
        self.program.memory().other
    }

    /// Runs over all images once, each rank over its part of each batch; those that cannot be read are left out if the data
    /// set was opened so, and `skipped` is told why.
    ///
    /// # Errors
    /// What the device reported, and those of images that cannot be read; [`Error::Data`] if none can; [`Error::Ranks`].
    pub(super) fn run(&mut self, mut skipped: impl FnMut(&str)) -> Result<Evaluation> {
        let (rank, ranks) = (self.ranks.rank(), self.ranks.size());
        let mut loader = self
            .data
            .test_loader_of([rank, ranks], self.batch_size * ranks)?;
        // Steps are numbered over the program's life.
        let first = self.program.steps_done();
        let (mut loss, mut hits, mut hits5, mut lens) = (0.0, 0.0, 0.0, Vec::new());
        let mut add = |lens: &[usize], outputs: Outputs| {
            // Those of an evaluation that ended in an error come first.
            let number = outputs.step.checked_sub(first);
            let len = number.and_then(|i| lens.get(i as usize)).copied();
            let len = len.unwrap_or(0);
            let sum = |name: &str| -> f64 {
                let values = outputs.values.get(name).map_or(&[][..], Vec::as_slice);
                values.iter().take(len).map(|&v| f64::from(v)).sum()
            };
            loss += sum("losses");
            hits += sum("hits");
            hits5 += sum("hits5");
        };
        while let Some(batch) = loader.next_batch()? {
            lens.push(batch.len);
            for why in &batch.skipped {
                skipped(why);
            }
            let [images, labels] = [
                input_of(&batch.images, [0, 1]),
                Input::Values(&batch.labels),
            ];
            self.program
                .step_with(&[("images", images), ("labels", labels)])?;
            loader.recycle(batch);
            for outputs in self.program.collect()? {
                add(&lens, outputs);
            }
        }
        for outputs in self.program.finish()? {
            add(&lens, outputs);
        }
        let own = [loss, hits, hits5, lens.iter().sum::<usize>() as f64];
        let mut sums = [0.0; 4];
        let bytes = bytemuck::cast_slice(&own).to_vec();
        for of_rank in self.ranks.gather("the sums of an evaluation", bytes)? {
            let of_rank: Vec<f64> = bytemuck::pod_collect_to_vec(&of_rank);
            sums.iter_mut().zip(of_rank).for_each(|(sum, v)| *sum += v);
        }
        let [loss, hits, hits5, count] = sums;
        if count == 0.0 {
            let message = "none of the test images can be read";
            return Err(Error::data(&self.data.test.name, message));
        }
        Ok(Evaluation {
            loss: loss / count,
            top1: hits / count,
            top5: (self.data.test.classes >= MANY_CLASSES).then_some(hits5 / count),
            images: count as usize,
        })
    }
}

/// Evaluates a checkpoint written by training on the test images of a data set.
///
/// Model and loss are read from the checkpoint's metadata; `options` may name other data. A file without metadata, of PyTorch
/// for example, is opened by what `options` name, as [`Trained::read`] does. A folder is that of a run. `tell` is told of
/// images that are left out, and of what else the user should know.
///
/// # Errors
/// [`Error::Checkpoint`] if the file is damaged or does not fit, and those of data and device.
pub fn evaluate_checkpoint(
    gpu: &Arc<Gpu>,
    path: &Path,
    options: TrainOptions,
    mut tell: impl FnMut(&str),
) -> Result<Evaluation> {
    let (trained, config, set) = open_with_data(gpu, path, options, true)?;
    set.notices.iter().for_each(|notice| tell(notice));
    let mut store = store_for(gpu, &config)?;
    let batch_size = config.batch_size.min(set.test.len());
    trained.refuse_other(&config.data, set.test.channels, set.test.classes)?;
    let model = trained.model();
    let mut evaluator = Evaluator::new(&mut store, model, config.loss, &set, batch_size)?;
    trained.fill_whole(&store)?;
    evaluator.run(|skipped| tell(&format!("skipped: {skipped}")))
}

/// The network in `path`, how it is measured, and its data set or that of `options`, of whose images perhaps only those of
/// the test are wanted.
///
/// # Errors
/// As [`evaluate_checkpoint`].
pub(super) fn open_with_data(
    gpu: &Arc<Gpu>,
    path: &Path,
    options: TrainOptions,
    test_only: bool,
) -> Result<(Trained, TrainConfig, DataSet)> {
    let of_file = TrainOptions {
        model: options.model.clone(),
        norm: options.norm,
        form: options.form,
        width: options.width,
        ..TrainOptions::default()
    };
    let trained = Trained::open_with(gpu, path, of_file)?;
    let written = trained.trained_by();
    // Those of other sets are not the names of folders.
    let is_of_folder = written.data.as_deref() == Some(data::FOLDER);
    let names = Some(trained.class_names().to_vec()).filter(|n| is_of_folder && !n.is_empty());
    // Other data than it was trained on must not be looked for in the old folder. A batch of a training in parts has as
    // many images as a part of it had.
    let below = TrainOptions {
        batch_size: at_once(&written),
        accumulate: Some(1),
        data_dir: if options.data.is_some() {
            None
        } else {
            written.data_dir.clone()
        },
        ..written
    };
    let config = TrainConfig::resolve(options.over(below))?;
    let set = config.open_data_as(names, test_only)?;
    Ok((trained, config, set))
}

/// Images that a step of training had in memory at one time, where it is known.
fn at_once(written: &TrainOptions) -> Option<usize> {
    let parts = written.accumulate.unwrap_or(1).max(1);
    written.batch_size.map(|batch| (batch / parts).max(1))
}

/// An empty store for what `config` was trained to.
///
/// # Errors
/// [`Error::Config`] if the adapter cannot run its kernels.
pub(super) fn store_for(gpu: &Arc<Gpu>, config: &TrainConfig) -> Result<Store> {
    let mut store = Store::new(gpu, config.seed);
    // Those of a training on a GPU would take minutes to compile for a CPU.
    if !gpu.is_software() {
        config.choose_kernels(&mut store)?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_a_training_in_parts_is_a_part_of_it() {
        for (batch_size, accumulate, wanted) in [
            (Some(24), Some(1), Some(24)),
            (Some(24), Some(4), Some(6)),
            (Some(24), None, Some(24)),
            (Some(2), Some(4), Some(1)),
            (None, Some(4), None),
        ] {
            let written = TrainOptions {
                batch_size,
                accumulate,
                ..TrainOptions::default()
            };
            assert_eq!(at_once(&written), wanted, "{batch_size:?} {accumulate:?}");
        }
    }
}
