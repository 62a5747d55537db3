//! A training step as the programs that it takes: one, or with gradient accumulation one for each
//! part of the batch and one for the update.

use std::sync::Arc;

use super::config::TrainConfig;
use super::graphs::{ImageInput, accumulation_step_among, training_step_among, update_step};
use crate::data::{Batch, Pixels};
use crate::graph::{Among, Graph};
use crate::models::Model;
use crate::nn::{Layer, Mode, RowLoss};
use crate::optim::Optimizer;
use crate::program::{CompileOptions, ExchangeTimes, Input, Outputs, Program, Store};
use crate::ranks::Ranks;
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
    /// How many parts a batch, or each rank's part of it, is cut into.
    pub(super) parts: usize,
    /// Which of the processes that train together this is.
    pub(super) among: Among,
}

impl<'a> Recipe<'a> {
    /// What a run's configuration says.
    pub(super) fn new(model: &'a Model, config: &'a TrainConfig) -> Self {
        Self {
            model,
            loss: &config.loss,
            optimizer: &config.optimizer,
            parts: config.accumulate,
            among: Among::default(),
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
    ranks: Arc<dyn Ranks>,
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
            ranks: Arc::clone(store.ranks()),
        })
    }

    /// Bytes that its programs take beside what they share in the store.
    pub(super) fn other_bytes(&self) -> u64 {
        self.all_programs().map(|p| p.memory().other).sum()
    }

    fn all_programs(&self) -> impl Iterator<Item = &Program> {
        let programs = self.programs.iter().map(|(_, program)| program);
        programs.chain(&self.update)
    }

    /// What its programs exchange in a step, in words that are the same on ranks whose exchanges are.
    pub(super) fn exchanges(&self) -> String {
        let lens: Vec<_> = self.all_programs().map(Program::exchange_lens).collect();
        format!("{lens:?}")
    }

    /// What its programs have exchanged.
    pub(super) fn exchange_times(&self) -> ExchangeTimes {
        let mut sum = ExchangeTimes::default();
        for times in self.all_programs().map(Program::exchange_times) {
            sum.seconds += times.seconds;
            sum.shown += times.shown;
            sum.bytes += times.bytes;
        }
        sum
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
        let outputs = match (wait, self.ranks.size()) {
            (true, _) => program.finish()?,
            (false, 1) => program.collect()?,
            // All but those of the last step, which are done, since gradients of a later one were exchanged: as many on every
            // rank.
            _ => program.finish_before(program.steps_done().saturating_sub(self.parts as u64))?,
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
            let own = [*loss, *top1].map(|sum| (sum / *count as f64) as f32);
            let [loss, top1] = of_all(&*self.ranks, own)?;
            self.results.push(StepResult { loss, top1 });
            self.partial = (0, 0.0, 0.0);
        }
        Ok(())
    }
}

/// The mean over the ranks. A number is that of all of them, or of none.
fn of_all(ranks: &dyn Ranks, own: [f32; 2]) -> Result<[f32; 2]> {
    if ranks.size() == 1 {
        return Ok(own);
    }
    let sums = ranks.sum("the loss", own.to_vec())?;
    Ok([0, 1].map(|i| sums[i] / ranks.size() as f32))
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
        among,
    } = recipe;
    let mut graphs = Vec::new();
    for &mode in modes {
        graphs.push(match parts {
            1 => training_step_among(among, model, loss, optimizer, part.clone(), mode)?,
            parts => accumulation_step_among(among, model, loss, part.clone(), mode, parts)?,
        });
    }
    if parts > 1 {
        graphs.push(update_step(&graphs[0], optimizer)?);
    }
    Ok(graphs)
}
