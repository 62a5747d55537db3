//! Training to look on at: one network with several norms side by side, a step at a time.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint;
use super::config::TrainConfig;
use super::curve_options::{CurveOptions, Line};
use super::curves::draw_curves;
use super::graphs::ImageInput;
use super::interface::Interface;
use super::metrics::{Record, Split};
use super::options::TrainOptions;
use super::stepper::{Recipe, Stepper};
use super::trained::Trained;
use crate::data::{DataSet, Loader};
use crate::files::make_folder;
use crate::gpu::Gpu;
use crate::models::{Model, Norm};
use crate::nn::FreezeCounter;
use crate::program::Store;
use crate::{Error, Result};

/// A run whose steps are asked for one by one. Writes nothing.
///
/// Needs the feature `draw`. Unstable: may change in any release.
#[derive(Debug)]
pub struct Live {
    runs: Vec<LiveRun>,
    data: DataSet,
    loader: Loader,
    lr: f32,
    freeze: FreezeCounter,
    step: u64,
}

/// One of the networks.
#[derive(Debug)]
pub struct LiveRun {
    /// What normalises it.
    pub norm: Norm,
    /// Losses of the steps that are done.
    pub losses: Vec<f32>,
    /// Shares of hits in their batches.
    pub top1: Vec<f32>,
    config: TrainConfig,
    model: Model,
    store: Store,
    stepper: Stepper,
}

impl Live {
    /// Compiles the network that `options` describe once for each of `norms`. They see the same batches.
    ///
    /// # Errors
    /// As [`super::train`].
    pub fn new(gpu: &Arc<Gpu>, options: &TrainOptions, norms: &[Norm]) -> Result<Self> {
        let mut runs: Vec<LiveRun> = Vec::new();
        let mut opened = None;
        for &norm in norms {
            let config = TrainConfig::resolve(TrainOptions {
                norm: Some(norm),
                ..options.clone()
            })?;
            let data = match opened.take() {
                Some((data, _)) => data,
                None => config.open_data()?,
            };
            let images = &data.train;
            let model = config.model(images.classes);
            let mut store = match runs.first() {
                Some(first) => Store::in_workspace(first.store.workspace(), config.seed),
                None => Store::new(gpu, config.seed),
            };
            config.choose_kernels(&mut store)?;
            let part = ImageInput::of(&data, images, config.batch_size / config.accumulate);
            let modes = model.modes(u64::MAX, FreezeCounter::new(config.freeze_iter));
            let stepper = Stepper::new(&mut store, Recipe::new(&model, &config), &part, &modes)?;
            runs.push(LiveRun {
                norm,
                losses: Vec::new(),
                top1: Vec::new(),
                config: config.clone(),
                model,
                store,
                stepper,
            });
            opened = Some((data, config));
        }
        let (data, config) = opened.ok_or_else(|| Error::Config("no norm to train with".into()))?;
        Ok(Self {
            loader: data.train_loader(config.batch_size, config.seed, 0)?,
            lr: config.lr,
            freeze: FreezeCounter::new(config.freeze_iter),
            data,
            runs,
            step: 0,
        })
    }

    /// Submits a step of each run and waits for nothing but the images.
    ///
    /// # Errors
    /// [`Error::Diverged`] once a loss is no number, those of the data, what the device reported.
    pub fn step(&mut self) -> Result<()> {
        for run in &self.runs {
            let norm = run.norm.name();
            if let Some(step) = run.losses.iter().position(|loss| !loss.is_finite()) {
                return Err(Error::Diverged(format!(
                    "the loss of step {} with `norm` {norm} is no number",
                    step + 1
                )));
            }
        }
        let batch = self.loader.next_batch()?;
        let batch = batch.ok_or_else(|| Error::Config("there are no more images".into()))?;
        for run in &mut self.runs {
            let mode = run.model.mode(self.step, self.freeze);
            run.stepper.step(&batch, self.lr, mode)?;
        }
        self.loader.recycle(batch);
        self.step += 1;
        Ok(())
    }

    /// Takes the results of steps that are done; of all that were submitted if `wait`.
    ///
    /// # Errors
    /// What the device reported.
    pub fn collect(&mut self, wait: bool) -> Result<()> {
        for run in &mut self.runs {
            for result in run.stepper.take(wait)? {
                run.losses.push(result.loss);
                run.top1.push(result.top1);
            }
        }
        Ok(())
    }

    /// Writes a checkpoint of each network by the name of its norm and their curves into `dir`, which is
    /// made; returns the names of the files.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, and what the device reported.
    pub fn save(&self, dir: &Path) -> Result<Vec<String>> {
        make_folder(dir)?;
        let mut names = Vec::new();
        let mut curves = Vec::new();
        for run in &self.runs {
            let norm = run.norm.name();
            let name = format!("{norm}.safetensors");
            let tensors = checkpoint::from_store(&run.store, &checkpoint::MODEL)?;
            let interface = Interface::of(&self.data);
            let metadata = run.config.metadata(self.step, &interface)?;
            checkpoint::save(&dir.join(&name), &tensors, &metadata)?;
            names.push(name);
            curves.push((norm, run.records(self.lr)));
        }
        let lines = curves.iter().map(|(name, records)| Line {
            name,
            runs: vec![records],
            steps_per_epoch: None,
        });
        let lines: Vec<_> = lines.collect();
        let options = CurveOptions {
            title: "training".into(),
            ..CurveOptions::default()
        };
        draw_curves(&dir.join("curves.png"), &lines, &options)?;
        names.push("curves.png".into());
        Ok(names)
    }

    /// `run`, one of [`Live::runs`], as it is now. Waits for the GPU.
    ///
    /// # Errors
    /// What the device reported.
    pub fn trained(&self, run: &LiveRun) -> Result<Trained> {
        let interface = Interface::of(&self.data);
        Trained::of_store(&run.store, &run.model, &run.config, interface)
    }

    /// Steps submitted.
    pub fn submitted(&self) -> u64 {
        self.step
    }

    /// Steps whose results were taken, of the slowest run.
    pub fn done(&self) -> u64 {
        let done = self.runs.iter().map(|run| run.losses.len() as u64);
        done.min().unwrap_or(0)
    }

    /// The networks, in the order of `norms`.
    pub fn runs(&self) -> &[LiveRun] {
        &self.runs
    }

    /// As [`Live::runs`], for programs that are to run on their parameters.
    pub fn runs_mut(&mut self) -> &mut [LiveRun] {
        &mut self.runs
    }

    /// The images.
    pub fn data(&self) -> &DataSet {
        &self.data
    }
}

impl LiveRun {
    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its parameters and running statistics.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its losses as a run's log has them, but without times.
    fn records(&self, lr: f32) -> Vec<Record> {
        records(&self.losses, &self.top1, lr)
    }

    /// As [`LiveRun::store`], to compile programs for.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// Of steps from the first on, whose losses and shares of hits these are.
fn records(losses: &[f32], top1: &[f32], lr: f32) -> Vec<Record> {
    let steps = losses.iter().zip(top1).zip(1..);
    let record = |((&loss, &top1), step): ((&f32, &f32), u64)| Record {
        split: Split::Train,
        step,
        epoch: 0,
        loss: loss.is_finite().then_some(f64::from(loss)),
        top1: Some(f64::from(top1)),
        top5: None,
        lr: Some(lr),
        seconds: 0.0,
    };
    steps.map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_from_1() {
        let all = records(&[2.5, f32::NAN], &[0.25, 0.5], 0.125);
        let of = |r: &Record| (r.step, r.loss, r.top1, r.lr);
        assert_eq!(of(&all[0]), (1, Some(2.5), Some(0.25), Some(0.125)));
        assert_eq!(of(&all[1]), (2, None, Some(0.5), Some(0.125)));
    }
}
