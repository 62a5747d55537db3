//! The graphs of a training step and of an evaluation step.

use crate::autodiff::gradients;
use crate::graph::{Graph, Init, Kind, Role, TensorId};
use crate::models::Model;
use crate::nn::{Loss, Mode};
use crate::ops::{add, mean_to, mul, scale, top_k_accuracy};
use crate::optim::{self, Optimizer};
use crate::shape::Shape;
use crate::{Error, Result};

/// Forward, backward, optimiser, running statistics and metrics as one graph.
///
/// Inputs: `images` of shape `images` [N, C, H, W], `labels` `[N]` (class numbers as floats), `lr`
/// `[1]`. Outputs: `loss` (mean over the batch) and `top1` (share of hits).
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn training_step(
    model: &Model,
    loss: Loss,
    optimizer: &Optimizer,
    images: impl Into<Shape>,
    mode: Mode,
) -> Result<Graph> {
    let mut g = Graph::new();
    let mean = forward_with_loss(&mut g, model, loss, images.into(), mode)?;
    let lr = g.input("lr", [1]);
    let parameters = g.parameters();
    let grads = gradients(&mut g, mean, &parameters)?;
    optim::update(&mut g, optimizer, &parameters, &grads, lr)?;
    Ok(g)
}

/// One of the `parts` of a step whose batch does not fit at once: forward, backward, running
/// statistics and metrics of a part of the batch, the gradients added to those of the parts
/// before. [`update_step`] ends the step.
///
/// Statistics (of batch norm as of deconvolution) are those of the part, not of the whole batch.
/// Inputs: `images` and `labels` of the part, and `keep` `[1]`: 0 for the first part, else 1.
/// Outputs: `loss` and `top1` of the part. States: `NAME.accumulated_grad`, the mean's share so far.
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn accumulation_step(
    model: &Model,
    loss: Loss,
    images: impl Into<Shape>,
    mode: Mode,
    parts: usize,
) -> Result<Graph> {
    let mut g = Graph::new();
    let mean = forward_with_loss(&mut g, model, loss, images.into(), mode)?;
    let keep = g.input("keep", [1]);
    let parameters = g.parameters();
    let grads = gradients(&mut g, mean, &parameters)?;
    for (&w, &grad) in parameters.iter().zip(&grads) {
        let sum = accumulated(&mut g, w)?;
        let kept = mul(&mut g, sum, keep)?;
        let share = scale(&mut g, grad, 1.0 / parts.max(1) as f32)?;
        let next = add(&mut g, kept, share)?;
        g.assign(sum, next)?;
    }
    Ok(g)
}

/// The optimiser's update by the gradients that the parts of a step, as `part` has them, added up.
/// Input: `lr`. Nothing is read back.
///
/// # Errors
/// [`crate::Error::Shape`] for bugs of this crate.
pub fn update_step(part: &Graph, optimizer: &Optimizer) -> Result<Graph> {
    let mut g = Graph::new();
    let lr = g.input("lr", [1]);
    let (mut parameters, mut grads) = (Vec::new(), Vec::new());
    for id in part.parameters() {
        let node = part.node(id);
        let Kind::State(state) = &node.kind else {
            return Err(Error::bug(format!(
                "the parameter {} is no state",
                node.name
            )));
        };
        let w = g.parameter(&node.name, node.shape.clone(), state.init.clone())?;
        parameters.push(w);
        grads.push(accumulated(&mut g, w)?);
    }
    optim::update(&mut g, optimizer, &parameters, &grads, lr)?;
    Ok(g)
}

/// The sum of gradients of parameter `w`.
fn accumulated(g: &mut Graph, w: TensorId) -> Result<TensorId> {
    let (name, shape) = (g.node(w).name.clone(), g.shape(w).clone());
    let name = format!("{name}.accumulated_grad");
    g.state(&name, shape, Role::Scratch, Init::Constant(0.0))
}

/// Evaluation with running statistics. Inputs: `images` and `labels`. Outputs, one a row: `losses`
/// and `hits`, so that the rows that fill up the last batch can be left out.
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn evaluation_step(model: &Model, loss: Loss, images: impl Into<Shape>) -> Result<Graph> {
    let mut g = Graph::new();
    let (logits, labels) = forward(&mut g, model, images.into(), Mode::Eval)?;
    let per_row = loss.per_row(&mut g, logits, labels)?;
    let hits = top_k_accuracy(&mut g, logits, labels, 1)?;
    g.output("losses", per_row);
    g.output("hits", hits);
    Ok(g)
}

/// The mean loss, with the outputs `loss` and `top1`.
fn forward_with_loss(
    g: &mut Graph,
    model: &Model,
    loss: Loss,
    images: Shape,
    mode: Mode,
) -> Result<TensorId> {
    let (logits, labels) = forward(g, model, images, mode)?;
    let per_row = loss.per_row(g, logits, labels)?;
    let mean = mean_to(g, per_row, [1])?;
    let hits = top_k_accuracy(g, logits, labels, 1)?;
    let top1 = mean_to(g, hits, [1])?;
    g.output("loss", mean);
    g.output("top1", top1);
    Ok(mean)
}

fn forward(
    g: &mut Graph,
    model: &Model,
    images: Shape,
    mode: Mode,
) -> Result<(TensorId, TensorId)> {
    let batch = images.dims().first().copied().unwrap_or(0);
    let x = g.input("images", images);
    let labels = g.input("labels", [batch]);
    Ok((model.forward(g, x, mode)?, labels))
}
