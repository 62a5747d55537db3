//! The graphs of a training step and of an evaluation step.

use crate::autodiff::gradients;
use crate::data::{DataSet, Images};
use crate::graph::{Among, Graph, Init, Kind, Role, Tensor};
use crate::nn::{Layer, Mode, RowLoss};
use crate::optim::Optimizer;
use crate::shape::Shape;
use crate::{Error, Result};

/// What is given to a step as its input `images`, and how it becomes the numbers that the network takes.
///
/// A shape [N, C, H, W] is turned into one for images that are these numbers already. Those of a data set are normalised by
/// the graph. If they are bytes, the input is a quarter as large and is given by
/// [`Input::Bytes`](crate::program::Input::Bytes).
#[derive(Clone, Debug)]
pub struct ImageInput {
    shape: Shape,
    /// Unless they are normalised.
    raw: Option<Raw>,
}

/// Images as their source has them.
#[derive(Clone, Debug)]
struct Raw {
    are_bytes: bool,
    /// Per channel.
    mean: Vec<f32>,
    /// Per channel.
    std: Vec<f32>,
}

impl<S: Into<Shape>> From<S> for ImageInput {
    fn from(shape: S) -> Self {
        let shape = shape.into();
        Self { shape, raw: None }
    }
}

impl ImageInput {
    /// Bytes v, four to a word of the input, of images `shape` [N, C, H, W]: the network is given (v / 255 - mean) / std, with a
    /// mean and a deviation for each channel.
    pub fn bytes(shape: [usize; 4], mean: &[f32], std: &[f32]) -> Self {
        Self::raw(shape, true, mean, std)
    }

    /// Numbers v of images `shape` [N, C, H, W]: the network is given (v - mean) / std.
    pub fn floats(shape: [usize; 4], mean: &[f32], std: &[f32]) -> Self {
        Self::raw(shape, false, mean, std)
    }

    /// `count` of the images of `set`, as its loaders give them.
    pub(super) fn of(set: &DataSet, images: &Images, count: usize) -> Self {
        let shape = [count, images.channels, images.height, images.width];
        Self::raw(shape, images.are_bytes(), &set.mean, &set.std)
    }

    fn raw(shape: [usize; 4], are_bytes: bool, mean: &[f32], std: &[f32]) -> Self {
        let (mean, std) = (mean.to_vec(), std.to_vec());
        let raw = Some(Raw {
            are_bytes,
            mean,
            std,
        });
        Self {
            shape: shape.into(),
            raw,
        }
    }

    /// Appends the input and gives the images as the network takes them.
    pub(super) fn append(self, g: &Graph) -> Tensor<'_> {
        let Some(raw) = self.raw else {
            return g.input("images", self.shape);
        };
        match raw.are_bytes {
            true => {
                let words = g.input("images", [self.shape.len().div_ceil(4)]);
                let [mean, std] = scales(g, &raw.mean, &raw.std);
                words.unpack_pixels(mean, std, self.shape)
            }
            false => normalised(g.input("images", self.shape), &raw.mean, &raw.std),
        }
    }
}

/// `images` [N, C, H, W] less the mean and divided by the deviation of their channel.
pub(super) fn normalised<'g>(images: Tensor<'g>, mean: &[f32], std: &[f32]) -> Tensor<'g> {
    let [mean, std] = scales(images.graph(), mean, std);
    (images - mean) / std
}

/// Mean and deviation, [1, C, 1, 1] each.
fn scales<'g>(g: &'g Graph, mean: &[f32], std: &[f32]) -> [Tensor<'g>; 2] {
    [("normalise.mean", mean), ("normalise.std", std)].map(|(name, values)| {
        let init = Init::Values(values.to_vec().into());
        g.state(name, [1, values.len(), 1, 1], Role::Scratch, init)
    })
}

/// Forward, backward, optimiser, running statistics and metrics as one graph.
///
/// Inputs: `images` [N, C, H, W] as [`ImageInput`] says, `labels` `[N]` (class numbers as floats), `lr`
/// `[1]`. Outputs: `loss` (mean over the batch) and `top1` (share of hits).
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn training_step(
    model: &dyn Layer,
    loss: impl RowLoss,
    optimizer: &Optimizer,
    images: impl Into<ImageInput>,
    mode: Mode,
) -> Result<Graph> {
    training_step_among(Among::default(), model, loss, optimizer, images, mode)
}

/// As [`training_step`], of one of several processes, with gradients that are the mean of those of all. Loss and share of hits
/// are of its own part of the batch.
pub(super) fn training_step_among(
    among: Among,
    model: &dyn Layer,
    loss: impl RowLoss,
    optimizer: &Optimizer,
    images: impl Into<ImageInput>,
    mode: Mode,
) -> Result<Graph> {
    let g = Graph::of_rank(among);
    let mean = forward_with_loss(&g, model, loss, images.into(), mode);
    let lr = g.input("lr", [1]);
    let parameters = g.parameters();
    let grads = of_all_ranks(gradients(mean, &parameters), among);
    optimizer.update(&parameters, &grads, lr);
    g.check()?;
    Ok(g)
}

/// Gradients of the mean over the ranks, of those of each.
fn of_all_ranks(grads: Vec<Tensor<'_>>, among: Among) -> Vec<Tensor<'_>> {
    match among.ranks {
        1 => grads,
        _ => grads.into_iter().map(Tensor::rank_mean).collect(),
    }
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
    images: impl Into<ImageInput>,
    mode: Mode,
    parts: usize,
) -> Result<Graph> {
    accumulation_step_among(Among::default(), model, loss, images, mode, parts)
}

/// As [`accumulation_step`], of one of several processes.
pub(super) fn accumulation_step_among(
    among: Among,
    model: &dyn Layer,
    loss: impl RowLoss,
    images: impl Into<ImageInput>,
    mode: Mode,
    parts: usize,
) -> Result<Graph> {
    let g = Graph::of_rank(among);
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
/// Input: `lr`. Nothing is read back. Where `part` is of one of several processes, the sums are the mean of all.
///
/// # Errors
/// [`crate::Error::Shape`] for bugs of this crate.
pub fn update_step(part: &Graph, optimizer: &Optimizer) -> Result<Graph> {
    let g = Graph::of_rank(part.among());
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
    let grads = of_all_ranks(grads, g.among());
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

/// Of so many classes the share of images whose class is among the five largest logits is told, too.
pub(super) const MANY_CLASSES: usize = 100;

/// Evaluation with running statistics. Inputs: `images` and `labels`. Outputs, one a row: `losses`
/// and `hits`, with 100 classes or more `hits5`, so that the rows that fill up the last batch can be left out.
///
/// # Errors
/// [`crate::Error::Shape`] if the model does not fit the images.
pub fn evaluation_step(
    model: &dyn Layer,
    loss: impl RowLoss,
    images: impl Into<ImageInput>,
) -> Result<Graph> {
    let g = Graph::new();
    let (logits, labels) = forward(&g, model, images.into(), Mode::Eval);
    g.output("losses", losses(&loss, logits, labels));
    g.output("hits", logits.top_k_accuracy(labels, 1));
    if logits.size(1) >= MANY_CLASSES {
        g.output("hits5", logits.top_k_accuracy(labels, 5));
    }
    g.check()?;
    Ok(g)
}

/// The mean loss, with the outputs `loss` and `top1`.
fn forward_with_loss<'g>(
    g: &'g Graph,
    model: &dyn Layer,
    loss: impl RowLoss,
    images: ImageInput,
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
    images: ImageInput,
    mode: Mode,
) -> (Tensor<'g>, Tensor<'g>) {
    let x = images.append(g);
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
pub(super) fn losses<'g>(
    loss: &impl RowLoss,
    logits: Tensor<'g>,
    labels: Tensor<'g>,
) -> Tensor<'g> {
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
pub fn prediction_step(model: &dyn Layer, images: impl Into<ImageInput>) -> Result<Graph> {
    let g = Graph::new();
    let x = images.into().append(&g);
    g.output("logits", logits(model, x, Mode::Eval));
    g.check()?;
    Ok(g)
}

/// How many logits `model` makes of each of `count` images [C, H, W] of `shape`.
///
/// # Errors
/// [`crate::Error::Shape`] if it does not take such images, or gives anything but a row of logits an image.
pub(super) fn classes_of(model: &dyn Layer, count: usize, shape: [usize; 3]) -> Result<usize> {
    let g = Graph::new();
    let [c, h, w] = shape;
    let logits = logits(model, g.input("images", [count, c, h, w]), Mode::Eval);
    g.check()?;
    Ok(logits.size(1))
}
