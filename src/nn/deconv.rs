//! What the deconvolved layers share: options, statistics of rows, running statistics, the product with D on the
//! cheaper side, and which steps are frozen.

use super::deconv_refresh::{BatchMoments, LastRefresh, scaled_on_both_sides};
use crate::Error;
use crate::graph::{Graph, Init, Tensor};
use crate::nn::Mode;
use crate::ops::{CovGrad, MatMul, WHOLE_FEATURES, is_cheaper_by_rows};
use crate::shape::{Shape, gcd};

/// Options of network deconvolution. The defaults are those of the paper's code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeconvOptions {
    /// Channels (or features of a linear layer) decorrelated together, see [`resolve_block`].
    pub block: usize,
    /// Added to the diagonal of the covariance.
    pub eps: f32,
    /// Denman–Beavers iterations.
    pub n_iter: usize,
    /// Weight of the new value in running statistics.
    pub momentum: f32,
    /// Convolutions: statistics are taken from every `sampling_stride`-th patch in each direction; with
    /// `kernel_size` 1 from every `sampling_stride`^2-th pixel of all images laid end to end.
    pub sampling_stride: usize,
    /// How channels and taps are dealt to blocks.
    pub layout: Layout,
    /// Whether the layer keeps its running statistics for a while, see [`FreezeCounter`].
    pub freeze: bool,
    /// Covariance and D are computed anew in every `refresh`-th training step; 1 is the paper's layer. In
    /// the steps between ([`Mode::Between`]) the layer takes the last D, its columns scaled to bring
    /// every input channel towards the variance it had then (see `deconv_refresh.rs`), and the mean of the
    /// batch. Layers with `freeze` do without: they have their own way to save work.
    pub refresh: usize,
}

impl Default for DeconvOptions {
    fn default() -> Self {
        Self::PAPER
    }
}

impl DeconvOptions {
    /// The defaults of the paper's code for convolutions.
    pub const PAPER: Self = Self {
        block: 64,
        eps: 1e-5,
        n_iter: 5,
        momentum: 0.1,
        sampling_stride: 3,
        layout: Layout::Contiguous,
        freeze: false,
        refresh: 1,
    };

    /// So many channels, or features of a linear layer, are decorrelated together; 64 at first.
    #[must_use]
    pub const fn block(mut self, block: usize) -> Self {
        self.block = block;
        self
    }

    /// Added to the diagonal of the covariance; 1e-5 at first.
    #[must_use]
    pub const fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Denman–Beavers iterations; 5 at first.
    #[must_use]
    pub const fn n_iter(mut self, n_iter: usize) -> Self {
        self.n_iter = n_iter;
        self
    }

    /// Weight of the new value in running statistics, from 0 to 1; 0.1 at first.
    #[must_use]
    pub const fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Statistics are taken from every so-many-th patch in each direction; 3 at first.
    #[must_use]
    pub const fn sampling_stride(mut self, sampling_stride: usize) -> Self {
        self.sampling_stride = sampling_stride;
        self
    }

    /// How channels and taps are dealt to blocks; contiguous at first.
    #[must_use]
    pub const fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Whether the layer takes its running statistics in frozen steps, see [`FreezeCounter`]; not at first.
    #[must_use]
    pub const fn freeze(mut self, freeze: bool) -> Self {
        self.freeze = freeze;
        self
    }

    /// Covariance and D are computed anew in every so-many-th training step; 1, the paper's layer, at first.
    #[must_use]
    pub const fn refresh(mut self, refresh: usize) -> Self {
        self.refresh = refresh;
        self
    }

    /// Whether the layer has steps between refreshes.
    pub(super) fn has_refresh(&self) -> bool {
        self.refresh > 1 && !self.freeze
    }
}

/// How columns of the patch matrix are dealt to blocks of `features` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Block j has columns j * features .. (j + 1) * features: whole channels (the paper's text).
    Contiguous,
    /// Block j has columns j, j + blocks, ...: taps of many channels (the authors' code).
    Strided,
}

/// The block size used for `channels`: all of them if `block` is no smaller, `block` if it divides
/// them, else their greatest common divisor.
pub fn resolve_block(block: usize, channels: usize) -> usize {
    if block >= channels {
        channels
    } else {
        gcd(block, channels).max(1)
    }
}

/// Statistics of a layer's input, and what they are made into.
#[derive(Clone, Copy, Debug)]
pub struct Statistics<'g> {
    /// [groups, 1, features].
    pub mean: Tensor<'g>,
    /// [groups, features, features], with eps; `None` where taken from running statistics.
    pub cov: Option<Tensor<'g>>,
    /// [groups, features, features]: the inverse square root of `cov`, that of the last refresh, or the running D.
    pub deconv: Tensor<'g>,
    /// `[channels]`: factors of the columns of `deconv`, or `None` for 1. See [`Mode::Between`].
    pub factors: Option<Tensor<'g>>,
}

impl<'g> Statistics<'g> {
    /// What a layer gives whose graph has failed before there are any.
    pub(super) fn none(x: Tensor<'g>) -> Self {
        Self {
            mean: x,
            cov: None,
            deconv: x,
            factors: None,
        }
    }
}

/// Mean, covariance and its inverse square root of `rows` [rows, groups * features], one of each
/// for every group of columns (Algorithm 1).
///
/// The gradient flows through the covariance and, for those who use it, through the mean. The
/// mean inside the covariance is detached: its gradient is the column sum of the centred rows,
/// which is zero.
#[track_caller]
pub(super) fn statistics_of_rows<'g>(
    rows: Tensor<'g>,
    groups: usize,
    options: &DeconvOptions,
) -> Statistics<'g> {
    let [count, columns] = rows.dims();
    let features = columns / groups;
    let mean = rows.mean_to([1, columns]).over_ranks();
    let mut centred = rows - mean.detach();
    if groups > 1 {
        let by_row = centred.reshape([count, groups, features]);
        centred = by_row.permute(&[1, 0, 2]);
    }
    let centred = centred.reshape([groups, count, features]);
    // With the statistics of all ranks their rows are not here, and the mean of the covariances is that of all rows.
    let has_all_rows = rows.graph().among().sync_ranks() == 1;
    let cov = centred.covariance(options.eps).over_ranks().named("cov");
    let deconv = match has_all_rows && is_cheaper_by_rows(count, features, options.n_iter) {
        true => centred.newton_schulz_of_rows(options.eps, options.n_iter),
        false => cov.newton_schulz(options.n_iter, CovGrad::Symmetric),
    };
    Statistics {
        mean: mean.reshape([groups, 1, features]),
        cov: Some(cov),
        deconv: deconv.named("deconv"),
        factors: None,
    }
}

/// Running mean [groups, features] and running deconv [groups, features, features], from 0 and I.
pub(super) struct Running<'g> {
    groups: usize,
    features: usize,
    mean: Tensor<'g>,
    deconv: Tensor<'g>,
}

impl<'g> Running<'g> {
    /// The states, under the current scope. With `groups` 1 and `flat`, without that dimension.
    #[track_caller]
    pub(super) fn new(g: &'g Graph, groups: usize, features: usize, flat: bool) -> Self {
        let first = usize::from(flat);
        let (mean, deconv) = ([groups, features], [groups, features, features]);
        Self {
            groups,
            features,
            mean: g.statistic("running_mean", &mean[first..], Init::Constant(0.0)),
            deconv: g.statistic("running_deconv", &deconv[first..], Init::Identity),
        }
    }

    /// The running values as statistics. No gradient flows to states.
    fn statistics(&self) -> Statistics<'g> {
        let (groups, features) = (self.groups, self.features);
        Statistics {
            mean: self.mean.reshape([groups, 1, features]),
            cov: None,
            deconv: self.deconv.reshape([groups, features, features]),
            factors: None,
        }
    }

    /// Moves both towards `mean` and `deconv` at the end of the step.
    fn update(&self, mean: Tensor<'g>, deconv: Tensor<'g>, momentum: f32) {
        for (running, value) in [(self.mean, mean), (self.deconv, deconv)] {
            let value = value.reshape(running.shape());
            running.assign(blend(running, value, momentum));
        }
    }
}

/// (1 - momentum) * old + momentum * new.
pub(super) fn blend<'g>(old: Tensor<'g>, new: Tensor<'g>, momentum: f32) -> Tensor<'g> {
    old * (1.0 - momentum) + new * momentum
}

/// Statistics of the layer's input `x`, [N, C, ...], as `mode` wants: those of the batch with the running
/// ones updated, those of the last refresh brought to the batch, or the running ones.
///
/// `rows` turns images like `x`, however many, into the matrix whose rows statistics are taken of. `by_feature` turns
/// factors of the channels, `[C]`, into those of the features, [groups, features]: the mean over the blocks that share D.
#[track_caller]
pub(super) fn statistics<'g>(
    mode: Mode,
    running: &Running<'g>,
    options: &DeconvOptions,
    x: Tensor<'g>,
    rows: impl Fn(Tensor<'g>) -> Tensor<'g>,
    by_feature: impl Fn(Tensor<'g>) -> Tensor<'g>,
) -> Statistics<'g> {
    if mode == Mode::Eval || (mode.is_frozen() && options.freeze) {
        return running.statistics();
    }
    let (groups, features) = (running.groups, running.features);
    let refresh = options.has_refresh().then(|| {
        let last = LastRefresh::new(x.graph(), groups, features, x.size(1));
        (last, BatchMoments::new(x))
    });
    if let Some((last, moments)) = refresh
        && mode.is_between()
    {
        // Patches are linear in the image: the mean patch is a patch of the mean image.
        let mean = rows(moments.mean_image).mean_to([1, groups * features]);
        let factors = last.factors(moments.var, options.eps);
        let of_today = scaled_on_both_sides(last.deconv, by_feature(factors));
        running.update(mean, of_today, options.momentum);
        return Statistics {
            mean: mean.reshape([groups, 1, features]),
            cov: None,
            deconv: last.deconv,
            factors: Some(factors),
        };
    }
    let statistics = statistics_of_rows(rows(x).named("patches"), groups, options);
    running.update(statistics.mean, statistics.deconv, options.momentum);
    if let Some((last, moments)) = refresh {
        last.update(statistics.deconv, moments.var, options.eps);
    }
    statistics
}

/// Fails with [`Error::Graph`], naming the first size that is 0, if there is one: it would divide by zero further down.
#[track_caller]
pub(super) fn refuse_zero(g: &Graph, layer: &str, sizes: &[(&str, usize)]) {
    if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        g.fail(Error::graph(layer, format!("{name} is 0")));
    }
}

/// What D is multiplied into: the same result for another amount of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The weights, once for all images: y = x (W D)^T.
    Weights,
    /// The patches: y = (x D) W^T.
    Patches,
}

/// The cheaper side for `outputs` sums over each of `positions` patches (all images together).
///
/// D times a matrix of so many rows of F features, forward and in both gradients, takes 6 F^2 operations a row. The
/// weights have a row for each output and block, the patches one for each position and block; the sums themselves are the
/// same on both sides. With equally many rows, `Patches` needs the patches laid out, `Weights` needs padded images and weights
/// in another order for the gradients. Measured, `Patches` takes 6 % less time (512 positions and outputs, 4608 features).
pub(super) fn cheaper_side(positions: usize, outputs: usize) -> Side {
    match positions <= outputs {
        true => Side::Patches,
        false => Side::Weights,
    }
}

/// Whether D of so many features is taken for symmetric, so that its gradient is computed by halves. (Small ones, for
/// which that is no gain, are products of whole matrices.)
pub(super) fn is_symmetric(features: usize) -> bool {
    features > WHOLE_FEATURES
}

/// `rows` [groups, rows, features] times D, which is symmetric.
pub(super) fn times_deconv<'g>(rows: Tensor<'g>, deconv: Tensor<'g>) -> Tensor<'g> {
    let op = MatMul {
        b_is_symmetric: is_symmetric(deconv.size(2)),
        ..MatMul::default()
    };
    rows.matmul_with(deconv, None, op)
}

/// `rows` times the factors of the columns of D, which broadcast to `rows` seen as another shape.
pub(super) fn scale_columns<'g>(
    rows: Tensor<'g>,
    factors: Option<(Tensor<'g>, Shape)>,
) -> Tensor<'g> {
    match factors {
        Some((factors, view)) => (rows.reshape(view) * factors).reshape(rows.shape()),
        None => rows,
    }
}

/// What does deconvolution and layer at once: `weight` D, and what it makes of the mean, to be taken
/// from the bias (see [`fold_bias`]). X D itself is never formed.
///
/// `weight`: [groups, rows, features], a row for each output and block; returns the same shape
/// and the sums [groups, rows] to take from the bias. `factors` as in [`scale_columns`].
pub(super) fn fold<'g>(
    weight: Tensor<'g>,
    statistics: &Statistics<'g>,
    factors: Option<(Tensor<'g>, Shape)>,
) -> (Tensor<'g>, Tensor<'g>) {
    let weight_eff = scale_columns(times_deconv(weight, statistics.deconv), factors);
    let weight_eff = weight_eff.named("weight_eff");
    let shift = weight_eff.matmul_t(statistics.mean);
    let [groups, rows, _] = shift.dims();
    (weight_eff, shift.reshape([groups, rows]))
}

/// bias - sum over blocks of `shift`, that of each block of each output; without a bias, minus that sum.
pub(super) fn fold_bias<'g>(
    shift: Tensor<'g>,
    outputs: usize,
    bias: Option<Tensor<'g>>,
) -> Tensor<'g> {
    let by_output = shift.reshape([outputs, shift.len() / outputs]);
    let shift = by_output.reduce_sum([outputs, 1], -1.0).reshape([outputs]);
    bias.map_or(shift, |bias| bias + shift).named("bias_eff")
}

/// Which training steps recompute the statistics of layers with `freeze`.
///
/// A counter starts at 0; a step recomputes them if the counter is at most `freeze_iter`; after
/// each step it grows by one and wraps at 10 * `freeze_iter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezeCounter {
    freeze_iter: u64,
}

impl FreezeCounter {
    /// `freeze_iter` 0 never freezes.
    pub fn new(freeze_iter: u64) -> Self {
        Self { freeze_iter }
    }

    /// The first step that is frozen, if any is.
    pub fn first_frozen(&self) -> Option<u64> {
        (self.freeze_iter > 0).then(|| self.freeze_iter.saturating_add(1))
    }

    /// How training step `step` (from 0) is to be run.
    pub fn mode(&self, step: u64) -> Mode {
        match step.checked_rem(self.freeze_iter.saturating_mul(10)) {
            Some(counter) if counter > self.freeze_iter => Mode::TrainFrozen,
            _ => Mode::Train,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_rule() {
        assert_eq!(resolve_block(64, 3), 3);
        assert_eq!(resolve_block(16, 64), 16);
        assert_eq!(resolve_block(8, 12), 4);
        assert_eq!(resolve_block(512, 784), 16);
        assert_eq!(resolve_block(784, 784), 784);
        assert_eq!(resolve_block(4, 9), 1);
    }

    #[test]
    fn freeze_counter_wraps_at_ten_times() {
        let counter = FreezeCounter::new(2);
        let updates: Vec<u64> = (0..45)
            .filter(|&s| counter.mode(s) == Mode::Train)
            .collect();
        assert_eq!(updates, [0, 1, 2, 20, 21, 22, 40, 41, 42]);
        assert!((0..9).all(|s| FreezeCounter::new(0).mode(s) == Mode::Train));
    }
}
