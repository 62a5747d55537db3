//! The graphs of a training step and of an evaluation step.

use crate::Result;
use crate::autodiff::gradients;
use crate::graph::{Graph, TensorId};
use crate::models::Model;
use crate::nn::{Loss, Mode};
use crate::ops::{mean_to, top_k_accuracy};
use crate::optim::{self, Optimizer};
use crate::shape::Shape;

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
    let (logits, labels) = forward(&mut g, model, images.into(), mode)?;
    let lr = g.input("lr", [1]);
    let per_row = loss.per_row(&mut g, logits, labels)?;
    let mean = mean_to(&mut g, per_row, [1])?;
    let hits = top_k_accuracy(&mut g, logits, labels, 1)?;
    let top1 = mean_to(&mut g, hits, [1])?;
    let parameters = g.parameters();
    let grads = gradients(&mut g, mean, &parameters)?;
    optim::update(&mut g, optimizer, &parameters, &grads, lr)?;
    g.output("loss", mean);
    g.output("top1", top1);
    Ok(g)
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
