//! The graphs of a training step and of an evaluation step.

use crate::autodiff::gradients;
use crate::graph::{Graph, Init, Kind, Role, Tensor};
use crate::nn::{Layer, Mode, RowLoss};
use crate::optim::Optimizer;
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
    model: &dyn Layer,
    loss: impl RowLoss,
    optimizer: &Optimizer,
    images: impl Into<Shape>,
    mode: Mode,
) -> Result<Graph> {
    let g = Graph::new();
    let mean = forward_with_loss(&g, model, loss, images.into(), mode);
    let lr = g.input("lr", [1]);
    let parameters = g.parameters();
    optimizer.update(&parameters, &gradients(mean, &parameters), lr);
    g.check()?;
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
    model: &dyn Layer,
    loss: impl RowLoss,
    images: impl Into<Shape>,
    mode: Mode,
    parts: usize,
) -> Result<Graph> {
    let g = Graph::new();
    let mean = forward_with_loss(&g, model, loss, images.into(), mode);
    let keep = g.input("keep", [1]);
    let parameters = g.parameters();
    let share = 1.0 / parts.max(1) as f32;
    for (&w, grad) in parameters.iter().zip(gradients(mean, &parameters)) {
        let sum = accumulated(w);
        sum.assign(sum * keep + grad * share);
    }
    g.check()?;
    Ok(g)
}

/// The optimiser's update by the gradients that the parts of a step, as `part` has them, added up.
/// Input: `lr`. Nothing is read back.
///
/// # Errors
/// [`crate::Error::Shape`] for bugs of this crate.
pub fn update_step(part: &Graph, optimizer: &Optimizer) -> Result<Graph> {
    let g = Graph::new();
    let lr = g.input("lr", [1]);
    let (mut parameters, mut grads) = (Vec::new(), Vec::new());
    for parameter in part.parameters() {
        let node = parameter.node();
        let Kind::State(state) = node.kind else {
            let message = format!("the parameter {} is no state", node.name);
            return Err(Error::bug(message));
        };
        let w = g.parameter(&node.name, node.shape, state.init);
        parameters.push(w);
        grads.push(accumulated(w));
    }
    optimizer.update(&parameters, &grads, lr);
    g.check()?;
    Ok(g)
}

/// The sum of gradients of parameter `w`.
fn accumulated(w: Tensor<'_>) -> Tensor<'_> {
    let name = format!("{}.accumulated_grad", w.name());
    let init = Init::Constant(0.0);
    w.graph().state(&name, w.shape(), Role::Scratch, init)
}

/// Evaluation with running statistics. Inputs: `images` and `labels`. Outputs, one a row: `losses`
/// and `hits`, so that the rows that fill up the last batch can be left out.
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn evaluation_step(
    model: &dyn Layer,
    loss: impl RowLoss,
    images: impl Into<Shape>,
) -> Result<Graph> {
    let g = Graph::new();
    let (logits, labels) = forward(&g, model, images.into(), Mode::Eval);
    g.output("losses", losses(&loss, logits, labels));
    g.output("hits", logits.top_k_accuracy(labels, 1));
    g.check()?;
    Ok(g)
}

/// The mean loss, with the outputs `loss` and `top1`.
fn forward_with_loss<'g>(
    g: &'g Graph,
    model: &dyn Layer,
    loss: impl RowLoss,
    images: Shape,
    mode: Mode,
) -> Tensor<'g> {
    let (logits, labels) = forward(g, model, images, mode);
    let mean = losses(&loss, logits, labels).mean_to([1]);
    let top1 = logits.top_k_accuracy(labels, 1).mean_to([1]);
    g.output("loss", mean);
    g.output("top1", top1);
    mean
}

/// Logits and labels.
fn forward<'g>(
    g: &'g Graph,
    model: &dyn Layer,
    images: Shape,
    mode: Mode,
) -> (Tensor<'g>, Tensor<'g>) {
    let x = g.input("images", images);
    let labels = g.input("labels", [x.size(0)]);
    (logits(model, x, mode), labels)
}

/// What `model` gives for images `x` [N, C, H, W]; the graph fails if that is not [N, classes].
fn logits<'g>(model: &dyn Layer, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
    let logits = model.forward(x, mode);
    if !matches!(*logits.shape().dims(), [rows, _] if rows == x.size(0)) {
        let (given, wanted) = (logits.shape(), x.size(0));
        let message = format!(
            "it gives {given} for images {}: wanted is [{wanted}, classes]",
            x.shape()
        );
        x.graph().fail(Error::shape("network", message));
    }
    logits
}

/// The loss of every row; the graph fails if that is not `[N]`.
fn losses<'g>(loss: &impl RowLoss, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let losses = loss.per_row(logits, labels);
    if losses.shape() != labels.shape() {
        let message = format!(
            "it is {} for logits {}: wanted is one number a row, {}",
            losses.shape(),
            logits.shape(),
            labels.shape()
        );
        logits.graph().fail(Error::shape("loss", message));
    }
    losses
}

/// The network as it predicts, with running statistics. Input: `images`. Output: `logits` [N, classes].
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn prediction_step(model: &dyn Layer, images: impl Into<Shape>) -> Result<Graph> {
    let g = Graph::new();
    let x = g.input("images", images);
    g.output("logits", logits(model, x, Mode::Eval));
    g.check()?;
    Ok(g)
}
