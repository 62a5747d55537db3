//! A training step as the programs that it takes: one, or with gradient accumulation one for each
//! part of the batch and one for the update.

use super::config::TrainConfig;
use super::step::{accumulation_step, training_step, update_step};
use crate::data::Batch;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::Model;
use crate::nn::Mode;
use crate::optim::Optimizer;
use crate::program::{CompileOptions, Outputs, Program, Store};
use crate::{Error, Result};

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StepResult {
    /// Mean over the batch.
    pub(super) loss: f32,
    /// Share of hits.
    pub(super) top1: f32,
}

/// Runs training steps and collects their results in order.
#[derive(Debug)]
pub(super) struct Stepper {
    /// For [`Mode::Train`] and, where it differs and is needed, [`Mode::TrainFrozen`].
    programs: Vec<Program>,
    /// With more than one part.
    update: Option<Program>,
    parts: usize,
    /// Which program ran last.
    last: usize,
    /// Results of parts of a step that is not complete: number, loss, hits.
    partial: (usize, f64, f64),
    results: Vec<StepResult>,
}

impl Stepper {
    /// Compiles. `shape` is that of a whole batch [N, C, H, W], whose N `config.accumulate` divides.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub(super) fn new(
        store: &mut Store,
        model: &Model,
        config: &TrainConfig,
        shape: [usize; 4],
        with_frozen: bool,
    ) -> Result<Self> {
        let parts = config.accumulate;
        let shape = part_of(shape, parts);
        let mut modes = vec![Mode::Train];
        if with_frozen {
            modes.push(Mode::TrainFrozen);
        }
        let (mut programs, mut update) = (Vec::new(), None);
        for mode in modes {
            let graph = match parts {
                1 => training_step(model, config.loss, &config.optimizer, shape, mode)?,
                _ => accumulation_step(model, config.loss, shape, mode, parts)?,
            };
            programs.push(Program::compile(&graph, store, CompileOptions::default())?);
            if parts > 1 && update.is_none() {
                update = Some(compile_update(&graph, &config.optimizer, store)?);
            }
        }
        Ok(Self {
            programs,
            update,
            parts,
            last: 0,
            partial: (0, 0.0, 0.0),
            results: Vec::new(),
        })
    }

    /// Bytes that its programs take beside what they share in the store.
    pub(super) fn other_bytes(&self) -> u64 {
        let programs = self.programs.iter().chain(&self.update);
        programs.map(|p| p.memory().other).sum()
    }

    /// Submits a step.
    ///
    /// # Errors
    /// What the device reported.
    pub(super) fn step(&mut self, batch: &Batch, lr: f32, frozen: bool) -> Result<()> {
        let which = usize::from(frozen);
        if which >= self.programs.len() {
            return Err(Error::shape(
                "stepper",
                "no program for frozen layers: a bug",
            ));
        }
        // Results come in the order of steps: those of the other program first.
        if which != self.last {
            self.gather(true)?;
            self.last = which;
        }
        let program = &mut self.programs[which];
        let lr = [lr];
        let Some(update) = &mut self.update else {
            let inputs = [
                ("images", batch.images.as_slice()),
                ("labels", batch.labels.as_slice()),
                ("lr", &lr),
            ];
            program.step(&inputs)?;
            return Ok(());
        };
        let images = batch.images.chunks_exact(batch.images.len() / self.parts);
        let labels = batch.labels.chunks_exact(batch.labels.len() / self.parts);
        for (i, (images, labels)) in images.zip(labels).enumerate() {
            let keep = [if i == 0 { 0.0 } else { 1.0 }];
            program.step(&[("images", images), ("labels", labels), ("keep", &keep)])?;
        }
        update.step(&[("lr", &lr)])?;
        update.collect()?;
        Ok(())
    }

    /// Results of steps that are done, oldest first; of all steps if `wait`.
    ///
    /// # Errors
    /// What the device reported.
    pub(super) fn take(&mut self, wait: bool) -> Result<Vec<StepResult>> {
        self.gather(wait)?;
        Ok(std::mem::take(&mut self.results))
    }

    fn gather(&mut self, wait: bool) -> Result<()> {
        let program = &mut self.programs[self.last];
        let outputs = if wait {
            program.finish()?
        } else {
            program.collect()?
        };
        for outputs in outputs {
            self.add(&outputs);
        }
        Ok(())
    }

    fn add(&mut self, part: &Outputs) {
        let (count, loss, top1) = &mut self.partial;
        *count += 1;
        *loss += f64::from(part.scalar("loss"));
        *top1 += f64::from(part.scalar("top1"));
        if *count == self.parts {
            self.results.push(StepResult {
                loss: (*loss / *count as f64) as f32,
                top1: (*top1 / *count as f64) as f32,
            });
            self.partial = (0, 0.0, 0.0);
        }
    }
}

/// Of a batch of this shape, one of `parts`.
fn part_of([n, c, h, w]: [usize; 4], parts: usize) -> [usize; 4] {
    [n / parts, c, h, w]
}

/// The largest number of images at once, below that of `shape`, whose step would have room.
/// Allocates, but compiles nothing.
///
/// # Errors
/// What the device reported.
pub(super) fn largest_part(
    gpu: &Gpu,
    model: &Model,
    config: &TrainConfig,
    shape: [usize; 4],
) -> Result<Option<usize>> {
    let [n, c, h, w] = part_of(shape, config.accumulate);
    let fits = |images: usize| -> Result<bool> {
        let shape = [images, c, h, w];
        let graph = training_step(model, config.loss, &config.optimizer, shape, Mode::Train)?;
        match Program::plan(&graph, gpu, CompileOptions::default()) {
            Ok(memory) => gpu.has_room(memory.peak()),
            Err(Error::Limit(_)) => Ok(false),
            Err(other) => Err(other),
        }
    };
    let (mut fitting, mut too_many) = (0, n);
    while fitting + 1 < too_many {
        let middle = fitting.midpoint(too_many);
        if fits(middle)? {
            fitting = middle;
        } else {
            too_many = middle;
        }
    }
    Ok((fitting > 0).then_some(fitting))
}

fn compile_update(part: &Graph, optimizer: &Optimizer, store: &mut Store) -> Result<Program> {
    let graph = update_step(part, optimizer)?;
    Program::compile(&graph, store, CompileOptions::default())
}
