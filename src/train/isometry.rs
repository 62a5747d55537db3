//! How near the layers of a network are to isometries (paper section 3.2).
//!
//! Equation 2 follows `z_i`, what the weights of layer i are multiplied with, to `z_(i+1)` by `F_i = D_(i+1) f_i W_i`. If
//! `F_i` is an isometry on expectation, activations and gradients keep their scale from layer to layer. Here the scales are
//! measured, the covariance that D is to make I, and the singular values of `F_i`.
//!
//! `z_i` is a matrix (section 3.4): its rows are patches of the layer's input, for a linear layer the inputs. They come after
//! the norm, if that is before the layer: deconvolved patches for `deconv`, patches of deconvolved channels for `channel`,
//! and patches as they are for `none` and `batch`. The device gives images, gradients and D, in float32. All else is
//! computed from them on the host, in float64.
//!
//! Unstable: may change in any release.

mod matrix;
mod rows;

use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, thread};

use serde::Serialize;

use super::checkpoint::{self, Tensors};
use super::evaluate::{open_with_data, store_for};
use super::graphs::{ImageInput, losses};
use super::options::TrainOptions;
use super::stepper::input_of;
use crate::autodiff::{depends_on, gradients};
use crate::data::DataSet;
use crate::gpu::Gpu;
use crate::graph::{Graph, Init, Role, Tensor};
use crate::models::{Model, Tap};
use crate::nn::{Mode, RowLoss};
use crate::ops::Window;
use crate::program::{CompileOptions, Input, Program, Store};
use crate::{Error, Result};
use matrix::{Matrix, dot};
use rows::{Deconv, Moments, Rows, sample};

/// Most rows of a layer that are measured.
const MOST_ROWS: usize = 8192;

/// Most rows of two layers that a map is fitted to.
const MOST_PAIRS: usize = 4096;

/// Most columns that are measured: the time for eigenvalues grows by the third power.
const MOST_COLUMNS: usize = 1024;

/// So many columns of a wider layer: 64 channels of 3 x 3 taps.
const SOME_COLUMNS: usize = 576;

/// Eigenvalues below this share of the largest are taken for 0. Rounding in float32, as the device does it, leaves about 1e-14.
const ZERO: f64 = 1e-12;

/// What is measured of a convolution or linear layer. Numbers that do not exist (a quotient of zeros) are null in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerIsometry {
    /// Of the layer, dotted.
    pub name: String,
    /// Columns of `z_i`: channels times taps.
    pub features: usize,
    /// How many of them were measured, from the first on: all up to 1024. Of a wider layer whole blocks of deconvolution,
    /// 576 columns or less, if a block is not larger.
    pub columns: usize,
    /// Rows of `z_i` that were measured: all up to 8192, else as many, spread over images and places.
    pub rows: usize,
    /// Of `z_i`.
    pub activation: Scale,
    /// Of dLoss / d`z_i` times the number of images, Loss being the mean over them. Rows are taken for independent, also
    /// where patches overlap.
    pub gradient: Scale,
    /// Of the covariance of the patches before any norm that stands before the layer.
    pub before: Spectrum,
    /// Of the covariance of `z_i`.
    pub after: Spectrum,
    /// On the way to the next layer; none after the last.
    pub next: Option<Next>,
}

/// How large the numbers of a matrix are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Root mean square.
    pub rms: f64,
    /// Mean over the columns of the variance of each.
    pub variance: f64,
}

impl Scale {
    /// By the sum of the variances and the mean of each column.
    fn new(variance: f64, mean: &[f64]) -> Self {
        let columns = mean.len() as f64;
        let squares: f64 = mean.iter().map(|m| m * m).sum();
        Self {
            rms: ((variance + squares) / columns).sqrt(),
            variance: variance / columns,
        }
    }
}

/// What the eigenvalues of a covariance say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spectrum {
    /// The largest eigenvalue over the smallest that is not 0; none if all are.
    pub condition: Option<f64>,
    /// How many eigenvalues are not 0, which is less than 1e-12 of the largest. It is below the number of columns where a
    /// channel is constant, or rows are few.
    pub rank: usize,
    /// (sum of eigenvalues)^2 / sum of their squares: the number of columns if all are equal. 0 if all are 0.
    pub effective_rank: f64,
}

/// From `z_i` to `z_(i+1)`, the layer after it being the first whose input depends on its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Next {
    /// Of that layer.
    pub name: String,
    /// Root mean square of `z_(i+1)` over that of `z_i`.
    pub activation: f64,
    /// Root mean square of the gradient of `z_i` over that of `z_(i+1)`.
    pub gradient: f64,
    /// None with fewer rows than twice its inputs, which would not determine it, or if `z_i` is constant.
    pub map: Option<Map>,
}

/// The linear map that gives `z_(i+1)` best from `z_i`, both less their means, in least squares with a ridge of 1e-6 of the
/// trace: an estimate of the expectation of `F_i`, which it is for normal `z_i` (Stein's lemma). An isometry has all singular values at
/// 1. If both sides are white, the singular values are their canonical correlations, and none is above 1.
///
/// A convolution gives the vector of its channels at one place: the middle taps of a patch of `z_i`, at all places of
/// `z_(i+1)`. Before a linear layer these vectors are summed over the places of an image and divided by the root of their
/// number. So what a layer takes from its other taps, and what comes by a shortcut, is not seen by the map.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Map {
    /// Rows that it was fitted to.
    pub rows: usize,
    /// Numbers of a row of `z_i`.
    pub inputs: usize,
    /// Numbers of a row of `z_(i+1)`.
    pub outputs: usize,
    /// Largest singular value.
    pub largest: f64,
    /// Median of the singular values, of which there are as many as inputs or outputs, whichever are fewer.
    pub median: f64,
    /// Smallest singular value.
    pub smallest: f64,
    /// Share of the variance of `z_(i+1)` that it gives.
    pub explained: f64,
}

impl Map {
    /// The largest singular value over the median: 1 for an isometry.
    pub fn spread(&self) -> f64 {
        self.largest / self.median
    }
}

/// Measures every convolution and linear layer of a trained network, in order, on the first `images` training images (or
/// all, if there are fewer), which are not changed at random. Statistics are those of this batch, as in a training step in which
/// no layer is frozen and every layer refreshes; nothing is dropped. The file stays as it is. Loss, data set and options of the
/// layers are those of the training.
///
/// `options` may name other data, or which network a file is of that does not say it, as for
/// [`evaluate_checkpoint`](super::evaluate_checkpoint). `tell` is told what the user should know.
///
/// # Errors
/// [`Error::Config`] for fewer than two images, [`Error::Checkpoint`] if the file is damaged, does not fit, or the network
/// gives what is no number; [`Error::Limit`] if so many images do not fit at once; those of data and device.
pub fn isometry(
    gpu: &Arc<Gpu>,
    path: &Path,
    options: TrainOptions,
    images: usize,
    mut tell: impl FnMut(&str),
) -> Result<Vec<LayerIsometry>> {
    if images < 2 {
        let message = format!("`images` is {images}: statistics need at least 2");
        return Err(Error::Config(message));
    }
    let (trained, config, set) = open_with_data(gpu, path, options, false)?;
    set.notices.iter().for_each(|notice| tell(notice));
    trained.refuse_other(&config.data, set.train.channels, set.train.classes)?;
    let count = images.min(set.train.len());
    let model = Model {
        dropout: 0.0,
        ..*trained.model()
    };
    let g = Graph::new();
    let input = ImageInput::of(&set, &set.train, count);
    let (taps, y_grads) = with_gradients(&g, &model, config.loss, input)?;
    let kept = keep(&g, &taps, &y_grads);
    g.check()?;
    let mut store = store_for(gpu, &config)?;
    let mut program = Program::compile(&g, &mut store, CompileOptions::default())?;
    trained.fill_whole(&store)?;
    step(&mut program, &set, count)?;

    let weights = checkpoint::from_store(&store, &[Role::Parameter])?;
    let mut layers = Vec::new();
    for (tap, kept) in taps.iter().zip(&kept) {
        let layer = Layer::read(&store, &weights, tap, kept, count);
        layers.push(layer.map_err(|error| match error {
            Error::Checkpoint { message, .. } => Error::checkpoint(path, message),
            error => error,
        })?);
    }
    let nexts = next_layers(&g, &taps);
    let measured = on_all_cores(layers.len(), |i| {
        let map = nexts[i].map(|next| map(&layers[i], &layers[next]));
        Ok((layers[i].measured()?, map.transpose()?.flatten()))
    });
    let measured = measured.into_iter().collect::<Result<Vec<_>>>()?;
    let (mut found, maps): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    for (i, (next, map)) in nexts.into_iter().zip(maps).enumerate() {
        found[i].next = next.map(|next| Next {
            name: found[next].name.clone(),
            activation: found[next].activation.rms / found[i].activation.rms,
            gradient: found[i].gradient.rms / found[next].gradient.rms,
            map,
        });
    }
    Ok(found)
}

/// For each layer the number of the first one after it whose input depends on its result.
fn next_layers(g: &Graph, taps: &[Tap<'_>]) -> Vec<Option<usize>> {
    let len = g.list().nodes().len();
    let next = |(i, tap): (usize, &Tap<'_>)| {
        let reached = depends_on(&g.list(), &[tap.y.id()], len);
        (i + 1..taps.len()).find(|&next| reached[taps[next].given.id().index()])
    };
    taps.iter().enumerate().map(next).collect()
}

/// What `work` gives for each number below `count`, in order.
fn on_all_cores<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let numbers = iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let numbers = numbers.take_while(|&i| i < count);
        numbers.map(|i| (i, work(i))).collect::<Vec<_>>()
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            .flat_map(|of_thread| of_thread.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Forward and backward: the layers, and the gradients of their results.
fn with_gradients<'g>(
    g: &'g Graph,
    model: &Model,
    loss: impl RowLoss,
    images: ImageInput,
) -> Result<(Vec<Tap<'g>>, Vec<Tensor<'g>>)> {
    let x = images.append(g);
    let labels = g.input("labels", [x.size(0)]);
    let (logits, taps) = model.build(x, Mode::Train);
    let mean = losses(&loss, logits, labels).mean_to([1]);
    let results: Vec<Tensor<'g>> = taps.iter().map(|tap| tap.y).collect();
    let y_grads = gradients(mean, &results);
    g.check()?;
    Ok((taps, y_grads))
}

/// Names of the states that keep what is measured of a layer.
struct Kept {
    given: String,
    x: String,
    y_grad: String,
    /// Mean and D.
    deconv: Option<[String; 2]>,
}

/// Has tensors kept in states, which are read one by one: outputs of a step would all be in one buffer.
fn keep<'g>(g: &'g Graph, taps: &[Tap<'g>], y_grads: &[Tensor<'g>]) -> Vec<Kept> {
    let state = |name: String, tensor: Tensor<'g>| {
        let nothing = Init::Constant(0.0);
        let state = g.state(&name, tensor.shape(), Role::Scratch, nothing);
        state.assign(tensor);
        name
    };
    let of_layer = |(tap, &y_grad): (&Tap<'g>, &Tensor<'g>)| {
        let name = |what: &str| format!("isometry.{}.{what}", tap.name);
        let x = state(name("x"), tap.x);
        Kept {
            given: match tap.given == tap.x {
                true => x.clone(),
                false => state(name("given"), tap.given),
            },
            x,
            y_grad: state(name("y_grad"), y_grad),
            deconv: tap.statistics.map(|of| {
                let mean = state(name("mean"), of.mean);
                [mean, state(name("deconv"), of.deconv)]
            }),
        }
    };
    taps.iter().zip(y_grads).map(of_layer).collect()
}

/// One step on the first `count` training images.
fn step(program: &mut Program, set: &DataSet, count: usize) -> Result<()> {
    let batch = set.train_loader_in_order(count)?.next_batch()?;
    let batch = batch.ok_or_else(|| {
        let message = format!("there are no {count} training images that can be read");
        Error::data(&set.train.name, message)
    })?;
    program.step_with(&[
        ("images", input_of(&batch.images, [0, 1])),
        ("labels", Input::Values(&batch.labels)),
    ])?;
    program.finish()?;
    Ok(())
}

/// A layer on the host.
struct Layer {
    name: String,
    is_linear: bool,
    /// What it was given, if a norm before it makes `x` of that.
    given: Option<Rows>,
    x: Rows,
    deconv: Option<Deconv>,
    /// Gradients of the result, as rows for convolutions of 1 x 1.
    y_grad: Rows,
    /// How many columns are measured.
    columns: usize,
    /// [O, columns].
    weight: Matrix,
}

impl Layer {
    /// # Errors
    /// [`Error::Checkpoint`], without the file's name, for numbers that are none; what the device reported.
    fn read(
        store: &Store,
        weights: &Tensors,
        tap: &Tap<'_>,
        kept: &Kept,
        images: usize,
    ) -> Result<Self> {
        let read = |name: &str| {
            let values = store.read(name)?;
            match values.iter().all(|v| v.is_finite()) {
                true => Ok(values),
                false => {
                    let message = format!(
                        "gives no numbers at its layer {}: it is damaged, or did not learn",
                        tap.name
                    );
                    Err(Error::checkpoint("", message))
                }
            }
        };
        let pixel = Window {
            kernel_size: [1, 1],
            stride: 1,
            padding: 0,
            dilation: 1,
        };
        let rows = |name: &str, tensor: Tensor<'_>, window: Window| -> Result<Rows> {
            let shape = match *tensor.shape().dims() {
                [n, c, h, w] => [n, c, h, w],
                _ => [images, tensor.len() / images, 1, 1],
            };
            let [n, _, h, w] = shape;
            let positions = window.positions(h, w);
            let [h, w] = positions
                .ok_or_else(|| Error::bug(format!("{} has no positions in its input", tap.name)))?;
            Ok(Rows {
                x: read(name)?,
                shape,
                window,
                grid: [n, h, w],
            })
        };
        let window = tap.window.unwrap_or(pixel);
        let deconv = match &kept.deconv {
            None => None,
            Some([mean, deconv]) => {
                let [mean, deconv] = [wide(&read(mean)?), wide(&read(deconv)?)];
                let columns = mean.len();
                let deconv = Matrix {
                    columns,
                    data: deconv,
                };
                Some(Deconv { mean, deconv })
            }
        };
        let x = rows(&kept.x, tap.x, window)?;
        let columns = columns_of(&x, deconv.as_ref());
        let weight = weights.get(&format!("{}.weight", tap.name));
        let weight = weight.ok_or_else(|| Error::bug(format!("{} has no weight", tap.name)))?;
        let weight = weight.data.chunks_exact(x.features());
        Ok(Self {
            name: tap.name.clone(),
            is_linear: tap.window.is_none(),
            given: match kept.given == kept.x {
                true => None,
                false => Some(rows(&kept.given, tap.given, window)?),
            },
            y_grad: rows(&kept.y_grad, tap.y, pixel)?,
            columns,
            weight: Matrix::of_rows(columns, weight.map(|row| wide(&row[..columns]))),
            x,
            deconv,
        })
    }

    /// All but what is on the way to the next layer.
    fn measured(&self) -> Result<LayerIsometry> {
        let (rows, columns) = (sample(self.x.len(), MOST_ROWS), self.columns);
        let of_x = self.x.sampled(&rows, columns);
        let (before, z) = match (&self.given, &self.deconv) {
            (None, None) => (None, of_x),
            (None, Some(deconv)) => {
                let z = of_x.deconvolved(deconv);
                (Some(of_x), z)
            }
            (Some(given), _) => (Some(given.sampled(&rows, columns)), of_x),
        };
        let z = z.moments();
        let outputs = self.weight.rows();
        let y_grad = self.y_grad.sampled(&rows, outputs).moments();
        let gradient = y_grad.times(&self.weight);
        let images = self.x.shape[0] as f64;
        let activation = z.scale();
        let after = self.spectrum(z)?;
        Ok(LayerIsometry {
            name: self.name.clone(),
            features: self.x.features(),
            columns,
            rows: rows.len(),
            activation,
            gradient: Scale {
                rms: gradient.rms * images,
                variance: gradient.variance * images * images,
            },
            before: match before {
                Some(before) => self.spectrum(before.moments())?,
                None => after,
            },
            after,
            next: None,
        })
    }

    fn spectrum(&self, moments: Moments) -> Result<Spectrum> {
        let values = self.eigenvalues(moments.cov)?;
        let largest = values.last().copied().unwrap_or(0.0);
        let mut others = values.iter().filter(|&&v| v > ZERO * largest);
        let sum: f64 = values.iter().sum();
        let squares: f64 = values.iter().map(|v| v * v).sum();
        let rank = others.clone().count();
        Ok(Spectrum {
            condition: others.next().map(|smallest| largest / smallest),
            rank,
            effective_rank: if rank == 0 { 0.0 } else { sum * sum / squares },
        })
    }

    fn eigenvalues(&self, matrix: Matrix) -> Result<Vec<f64>> {
        let message = || format!("the eigenvalues at {} were not found", self.name);
        matrix.eigenvalues().ok_or_else(|| Error::bug(message()))
    }
}

/// How many columns of a layer are measured, see [`LayerIsometry::columns`].
fn columns_of(x: &Rows, deconv: Option<&Deconv>) -> usize {
    let features = x.features();
    if features <= MOST_COLUMNS {
        return features;
    }
    let block = deconv.map_or(features / x.shape[1], Deconv::features);
    (SOME_COLUMNS / block).max(1) * block
}

/// The map from `z` of a layer to that of a layer after it.
fn map(from: &Layer, to: &Layer) -> Result<Option<Map>> {
    let (x, next) = (&from.x, &to.x);
    let pairs = sample(next.len(), MOST_PAIRS);
    let inputs = x.shape[1];
    if pairs.len() < 2 * inputs {
        return Ok(None);
    }
    let of_next = pairs
        .iter()
        .map(|&row| next.channels_at(next.place(row), to.deconv.as_ref()));
    let mut b = Matrix::of_rows(next.shape[1], of_next);
    let mut a = Matrix::of_rows(
        inputs,
        pairs.iter().map(|&row| {
            let ([n, h, w], deconv) = (next.place(row), from.deconv.as_ref());
            if to.is_linear {
                return x.channels_of_image(n, deconv);
            }
            let ([_, from_h, from_w], [_, to_h, to_w]) = (x.grid, next.grid);
            x.channels_at([n, h * from_h / to_h, w * from_w / to_w], deconv)
        }),
    );
    a.centre();
    b.centre();
    let (mut gram, cross) = (a.gram(), a.t_product(&b));
    let ridge = 1e-6 * gram.trace();
    for i in 0..inputs {
        gram.row_mut(i)[i] += ridge;
    }
    let Some(solution) = gram.solve(cross.clone()) else {
        return Ok(None);
    };
    let total = dot(&b.data, &b.data);
    let given = dot(&solution.data, &cross.data) + ridge * dot(&solution.data, &solution.data);
    let outputs = solution.columns;
    // The smaller of the two has the same eigenvalues, without zeros.
    let squares = match outputs < inputs {
        true => solution.gram(),
        false => solution.transposed().gram(),
    };
    let squares = from.eigenvalues(squares)?;
    let value = |i: usize| squares.get(i).map_or(0.0, |v| v.max(0.0).sqrt());
    Ok(Some(Map {
        rows: pairs.len(),
        inputs,
        outputs,
        largest: value(squares.len().saturating_sub(1)),
        median: value(squares.len() / 2),
        smallest: value(0),
        explained: given / total,
    }))
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
