//! Channel deconvolution: decorrelates channels, not pixels, and has no weights.

use super::deconv::{DeconvOptions, Statistics, refuse_zero};
use super::{Layer, Mode};
use crate::Error;
use crate::graph::{Graph, Init, Tensor};
use crate::ops::CovGrad;

/// The first floor(C / block) * block channels are whitened in blocks that share one mean and one
/// covariance; the rest are standardised together by one mean and one variance.
///
/// Channel b * blocks + j is component b of block j. Statistics are taken of every
/// `sampling_stride`^2-th column where the image is at least `sampling_stride` in both directions.
/// States: `running_mean` `[block]`, `running_deconv` [block, block], with a rest `running_rest_mean`
/// and `running_rest_var` `[1]`, and `num_batches_tracked`: the first batch is copied.
#[derive(Clone, Copy, Debug)]
pub struct ChannelDeconv {
    /// C.
    pub channels: usize,
    /// Options; `eps` is 1e-2 by default in the paper's code. `layout` and `freeze` do not apply.
    pub options: DeconvOptions,
    /// True for the covariance (the paper), false for the second moment (the authors' later code).
    pub centered: bool,
}

/// What [`ChannelDeconv::forward_with_statistics`] gives.
#[derive(Clone, Copy, Debug)]
pub struct ChannelDeconvOutput<'g> {
    /// The shape of the input.
    pub output: Tensor<'g>,
    /// `mean` [1, 1, block], `cov` and `deconv` [1, block, block]; none if the input does not fit.
    pub statistics: Option<Statistics<'g>>,
}

impl ChannelDeconv {
    /// With the defaults of the paper's code: eps 1e-2, centred.
    #[must_use]
    pub const fn new(channels: usize, block: usize) -> Self {
        Self {
            channels,
            options: DeconvOptions::PAPER.block(block).eps(1e-2),
            centered: true,
        }
    }

    /// How channels are decorrelated: this takes the place of `block` and `eps` too.
    #[must_use]
    pub const fn options(mut self, options: DeconvOptions) -> Self {
        self.options = options;
        self
    }

    /// True for the covariance (the paper), as it is at first; false for the second moment.
    #[must_use]
    pub const fn centered(mut self, centered: bool) -> Self {
        self.centered = centered;
        self
    }

    /// As [`Layer::forward`], with the statistics that were used.
    #[track_caller]
    pub fn forward_with_statistics<'g>(
        &self,
        x: Tensor<'g>,
        mode: Mode,
    ) -> ChannelDeconvOutput<'g> {
        let (g, s) = (x.graph(), self.options.sampling_stride);
        let shape = x.shape();
        let (n, h, w) = match *shape.dims() {
            [n, c, h, w] if c == self.channels => (n, h, w),
            [n, c] if c == self.channels => (n, 1, 1),
            _ => {
                let message = format!("{shape} does not have {} channels", self.channels);
                g.fail(Error::shape("channel_deconv", message));
                (1, 1, 1)
            }
        };
        let sizes = [("channels", self.channels), ("sampling_stride", s)];
        refuse_zero(g, "channel_deconv", &sizes);
        if g.has_failed() {
            return ChannelDeconvOutput {
                output: x,
                statistics: None,
            };
        }
        let images = x.reshape([n, self.channels, h * w]);
        let block = self.options.block.min(self.channels).max(1);
        let whitened = self.channels / block * block;
        let step = if h >= s && w >= s { s * s } else { 1 };
        let weight = self.update_weight(g, mode);

        let first = images.slice(1, 0, 1, whitened);
        let (mut output, statistics) = self.whiten(first, block, step, weight);
        if whitened < self.channels {
            let rest = images.slice(1, whitened, 1, self.channels - whitened);
            output = g.concat(&[output, self.standardise(rest, step, weight)], 1);
        }
        ChannelDeconvOutput {
            output: output.reshape(shape),
            statistics: Some(statistics),
        }
    }

    /// How much running statistics move: all the way in the first training step, then by the
    /// momentum. `None` in evaluation, where the running values are used.
    #[track_caller]
    fn update_weight<'g>(&self, g: &'g Graph, mode: Mode) -> Option<Tensor<'g>> {
        let count = g.statistic("num_batches_tracked", [1], Init::Constant(0.0));
        if mode == Mode::Eval {
            return None;
        }
        count.assign(count + 1.0);
        let is_first = 1.0 - count;
        Some(is_first.maximum(g.constant(self.options.momentum, [1])))
    }

    /// D (x - mean) of each block of `images` [N, C, H * W].
    #[track_caller]
    fn whiten<'g>(
        &self,
        images: Tensor<'g>,
        block: usize,
        step: usize,
        weight: Option<Tensor<'g>>,
    ) -> (Tensor<'g>, Statistics<'g>) {
        let g = images.graph();
        let [n, channels, pixels] = images.dims();
        let running_mean = g.statistic("running_mean", [block], Init::Constant(0.0));
        let running_deconv = g.statistic("running_deconv", [block, block], Init::Identity);
        let columns = channels / block * n * pixels;
        let by_channel = images.permute(&[1, 0, 2]).reshape([block, columns]);
        let (mean, cov, deconv) = match weight {
            None => (running_mean.reshape([block, 1]), None, running_deconv),
            Some(weight) => {
                let count = columns.div_ceil(step);
                let sample = by_channel.slice(1, 0, step, count);
                let mean = sample.mean_to([block, 1]).over_ranks();
                let shifted = match self.centered {
                    true => sample - mean.detach(),
                    false => sample,
                };
                let rows = shifted.permute(&[1, 0]).reshape([1, count, block]);
                let cov = rows.covariance(self.options.eps).over_ranks();
                let deconv = cov.newton_schulz(self.options.n_iter, CovGrad::Symmetric);
                move_towards(running_mean, mean.reshape([block]), weight);
                let deconv = deconv.reshape([block, block]);
                move_towards(running_deconv, deconv, weight);
                (mean, Some(cov), deconv)
            }
        };
        let white = deconv.matmul(by_channel - mean);
        let white = white.reshape([channels, n, pixels]);
        let statistics = Statistics {
            mean: mean.reshape([1, 1, block]),
            cov,
            deconv: deconv.reshape([1, block, block]),
            factors: None,
        };
        (white.permute(&[1, 0, 2]), statistics)
    }

    /// (x - mean) / sqrt(var + eps) of `images` [N, C, H * W], with one mean and one variance.
    #[track_caller]
    fn standardise<'g>(
        &self,
        images: Tensor<'g>,
        step: usize,
        weight: Option<Tensor<'g>>,
    ) -> Tensor<'g> {
        let g = images.graph();
        let [n, channels, pixels] = images.dims();
        let running_mean = g.statistic("running_rest_mean", [1], Init::Constant(0.0));
        let running_var = g.statistic("running_rest_var", [1], Init::Constant(1.0));
        let (mean, var) = match weight {
            None => (running_mean, running_var),
            Some(weight) => {
                let len = channels * pixels;
                let flat = images.reshape([n, len]);
                let sample = flat.slice(1, 0, step, len.div_ceil(step));
                let mean = sample.mean_to([1]).over_ranks();
                let ranks = g.among().sync_ranks();
                let divisor = (ranks * sample.len()).saturating_sub(1).max(1) as f32;
                let squares = (sample - mean).square();
                let var = squares.reduce_sum([1], ranks as f32 / divisor).over_ranks();
                move_towards(running_mean, mean, weight);
                move_towards(running_var, var, weight);
                (mean, var)
            }
        };
        let std = (var + self.options.eps).sqrt();
        (images - mean) / std
    }
}

impl Layer for ChannelDeconv {
    /// `x` [N, C, H, W] or [N, C], to the same shape.
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        self.forward_with_statistics(x, mode).output
    }
}

/// state = (1 - weight) * state + weight * value, `weight` one number on the GPU.
fn move_towards<'g>(state: Tensor<'g>, value: Tensor<'g>, weight: Tensor<'g>) {
    state.assign(state * (1.0 - weight) + value * weight);
}
