//! A training step as the programs that it takes: one, or with gradient accumulation one for each
//! part of the batch and one for the update.

use super::config::TrainConfig;
use super::graphs::{ImageInput, accumulation_step, training_step, update_step};
use crate::data::{Batch, Pixels};
use crate::graph::Graph;
use crate::models::Model;
use crate::nn::{Layer, Mode, RowLoss};
use crate::optim::Optimizer;
use crate::program::{CompileOptions, Input, Outputs, Program, Store};
use crate::{Error, Result};

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean over the batch, with the parameters from before the step.
    pub loss: f32,
    /// Share of images whose largest logit is that of their class.
    pub top1: f32,
}

/// What is trained, and how.
#[derive(Clone, Copy)]
pub(super) struct Recipe<'a> {
    pub(super) model: &'a dyn Layer,
    pub(super) loss: &'a dyn RowLoss,
    pub(super) optimizer: &'a Optimizer,
    /// How many parts a batch is cut into.
    pub(super) parts: usize,
}

impl<'a> Recipe<'a> {
    /// What a run's configuration says.
    pub(super) fn new(model: &'a Model, config: &'a TrainConfig) -> Self {
        Self {
            model,
            loss: &config.loss,
            optimizer: &config.optimizer,
            parts: config.accumulate,
        }
    }
}

/// Runs training steps and collects their results in order.
#[derive(Debug)]
pub(super) struct Stepper {
    /// One for each mode of the run, see [`Model::modes`].
    programs: Vec<(Mode, Program)>,
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
    /// Compiles. `part` are the images of one of the parts of a batch.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub(super) fn new(
        store: &mut Store,
        recipe: Recipe<'_>,
        part: &ImageInput,
        modes: &[Mode],
    ) -> Result<Self> {
        let parts = recipe.parts;
        let mut compiled = Vec::new();
        for graph in step_graphs(recipe, part, modes)? {
            compiled.push(Program::compile(&graph, store, CompileOptions::default())?);
        }
        let update = if parts > 1 { compiled.pop() } else { None };
        let programs = modes.iter().copied().zip(compiled).collect();
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
        let programs = self.programs.iter().map(|(_, program)| program);
        programs.chain(&self.update).map(|p| p.memory().other).sum()
    }

    /// Submits a step in one of the modes that it was made for.
    ///
    /// # Errors
    /// What the device reported.
    pub(super) fn step(&mut self, batch: &Batch, lr: f32, mode: Mode) -> Result<()> {
        let which = self.programs.iter().position(|(m, _)| *m == mode);
        let Some(which) = which else {
            return Err(Error::bug(format!(
                "there is no program for steps of mode {mode:?}"
            )));
        };
        // Results come in the order of steps: those of the other program first.
        if which != self.last {
            self.gather(true)?;
            self.last = which;
        }
        let (_, program) = &mut self.programs[which];
        let lr = [lr];
        let Some(update) = &mut self.update else {
            program.step_with(&[
                ("images", input_of(&batch.images, [0, 1])),
                ("labels", Input::Values(&batch.labels)),
                ("lr", Input::Values(&lr)),
            ])?;
            return Ok(());
        };
        let labels = batch.labels.chunks_exact(batch.labels.len() / self.parts);
        for (i, labels) in labels.enumerate() {
            let keep = [if i == 0 { 0.0 } else { 1.0 }];
            program.step_with(&[
                ("images", input_of(&batch.images, [i, self.parts])),
                ("labels", Input::Values(labels)),
                ("keep", Input::Values(&keep)),
            ])?;
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
        let (_, program) = &mut self.programs[self.last];
        let outputs = if wait {
            program.finish()?
        } else {
            program.collect()?
        };
        for outputs in outputs {
            self.add(&outputs)?;
        }
        Ok(())
    }

    fn add(&mut self, part: &Outputs) -> Result<()> {
        let (count, loss, top1) = &mut self.partial;
        *count += 1;
        *loss += f64::from(part.scalar("loss")?);
        *top1 += f64::from(part.scalar("top1")?);
        if *count == self.parts {
            self.results.push(StepResult {
                loss: (*loss / *count as f64) as f32,
                top1: (*top1 / *count as f64) as f32,
            });
            self.partial = (0, 0.0, 0.0);
        }
        Ok(())
    }
}

/// Part `i` of `parts` of a batch's images, as a step takes it.
pub(super) fn input_of(images: &Pixels, [i, parts]: [usize; 2]) -> Input<'_> {
    let len = images.len() / parts;
    let range = i * len..(i + 1) * len;
    match images {
        Pixels::Bytes(bytes) => Input::Bytes(&bytes[range]),
        Pixels::Floats(values) => Input::Values(&values[range]),
    }
}

/// The graphs of a step on parts like this one: one for each of `modes`, and with more than one part the
/// update.
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not take such images.
pub(super) fn step_graphs(
    recipe: Recipe<'_>,
    part: &ImageInput,
    modes: &[Mode],
) -> Result<Vec<Graph>> {
    let Recipe {
        model,
        loss,
        optimizer,
        parts,
    } = recipe;
    let mut graphs = Vec::new();
    for &mode in modes {
        graphs.push(match parts {
            1 => training_step(model, loss, optimizer, part.clone(), mode)?,
            parts => accumulation_step(model, loss, part.clone(), mode, parts)?,
        });
    }
    if parts > 1 {
        graphs.push(update_step(&graphs[0], optimizer)?);
    }
    Ok(graphs)
}
