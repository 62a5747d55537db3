//! Channel deconvolution: decorrelates channels, not pixels, and has no weights.

use super::Mode;
use super::deconv::{DeconvOptions, Statistics};
use crate::graph::{Graph, Init, TensorId};
use crate::ops::{
    CovGrad, Transpose, add, affine, concat, constant, covariance, detach, div, matmul, maximum,
    mean_to, mul, newton_schulz, permute, reduce_sum, reshape, slice, sqrt, square, sub,
};
use crate::{Error, Result};

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
pub struct ChannelDeconvOutput {
    /// The shape of the input.
    pub output: TensorId,
    /// `mean` [1, 1, block], `cov` and `deconv` [1, block, block]; none if C < 1.
    pub statistics: Option<Statistics>,
}

impl ChannelDeconv {
    /// With the defaults of the paper's code: eps 1e-2, centred.
    pub fn new(channels: usize, block: usize) -> Self {
        Self {
            channels,
            options: DeconvOptions {
                block,
                eps: 1e-2,
                ..DeconvOptions::default()
            },
            centered: true,
        }
    }

    /// `x` [N, C, H, W] or [N, C], to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have C channels.
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        Ok(self.forward_with_statistics(g, x, mode)?.output)
    }

    /// As [`ChannelDeconv::forward`], with the statistics that were used.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have C channels.
    pub fn forward_with_statistics(
        &self,
        g: &mut Graph,
        x: TensorId,
        mode: Mode,
    ) -> Result<ChannelDeconvOutput> {
        let shape = g.shape(x).clone();
        let (n, h, w) = match *shape.dims() {
            [n, c, h, w] if c == self.channels => (n, h, w),
            [n, c] if c == self.channels => (n, 1, 1),
            _ => {
                let message = format!("{shape} does not have {} channels", self.channels);
                return Err(Error::shape("channel_deconv", message));
            }
        };
        let images = reshape(g, x, [n, self.channels, h * w])?;
        let block = self.options.block.min(self.channels).max(1);
        let whitened = self.channels / block * block;
        let s = self.options.sampling_stride;
        let step = if h >= s && w >= s { s * s } else { 1 };
        let weight = self.update_weight(g, mode)?;

        let first = slice(g, images, 1, 0, 1, whitened)?;
        let (first, statistics) = self.whiten(g, first, block, step, weight)?;
        let mut output = first;
        if whitened < self.channels {
            let rest = slice(g, images, 1, whitened, 1, self.channels - whitened)?;
            let rest = self.standardise(g, rest, step, weight)?;
            output = concat(g, &[first, rest], 1)?;
        }
        Ok(ChannelDeconvOutput {
            output: reshape(g, output, shape)?,
            statistics: Some(statistics),
        })
    }

    /// How much running statistics move: all the way in the first training step, then by the
    /// momentum. `None` in evaluation, where the running values are used.
    fn update_weight(&self, g: &mut Graph, mode: Mode) -> Result<Option<TensorId>> {
        let count = g.buffer("num_batches_tracked", [1], Init::Constant(0.0))?;
        if mode == Mode::Eval {
            return Ok(None);
        }
        let next = affine(g, count, 1.0, 1.0)?;
        g.assign(count, next)?;
        let is_first = affine(g, count, -1.0, 1.0)?;
        let momentum = constant(g, self.options.momentum, [1])?;
        Ok(Some(maximum(g, is_first, momentum)?))
    }

    fn whiten(
        &self,
        g: &mut Graph,
        images: TensorId,
        block: usize,
        step: usize,
        weight: Option<TensorId>,
    ) -> Result<(TensorId, Statistics)> {
        let &[n, channels, pixels] = g.shape(images).dims() else {
            return Err(Error::shape("channel_deconv", "images are not [N, C, HW]"));
        };
        let running_mean = g.buffer("running_mean", [block], Init::Constant(0.0))?;
        let running_deconv = g.buffer("running_deconv", [block, block], Init::Identity)?;
        let by_channel = permute(g, images, &[1, 0, 2])?;
        let columns = channels / block * n * pixels;
        let by_channel = reshape(g, by_channel, [block, columns])?;
        let (mean, cov, deconv) = match weight {
            None => {
                let mean = reshape(g, running_mean, [block, 1])?;
                (mean, None, running_deconv)
            }
            Some(weight) => {
                let sample = slice(g, by_channel, 1, 0, step, columns.div_ceil(step))?;
                let mean = mean_to(g, sample, [block, 1])?;
                let shifted = if self.centered {
                    let constant_mean = detach(g, mean)?;
                    sub(g, sample, constant_mean)?
                } else {
                    sample
                };
                let rows = permute(g, shifted, &[1, 0])?;
                let rows = reshape(g, rows, [1, columns.div_ceil(step), block])?;
                let cov = covariance(g, rows, self.options.eps)?;
                let deconv = newton_schulz(g, cov, self.options.n_iter, CovGrad::Symmetric)?;
                let flat_mean = reshape(g, mean, [block])?;
                move_towards(g, running_mean, flat_mean, weight)?;
                let flat = reshape(g, deconv, [block, block])?;
                move_towards(g, running_deconv, flat, weight)?;
                (mean, Some(cov), flat)
            }
        };
        let centred = sub(g, by_channel, mean)?;
        let white = matmul(g, deconv, centred, Transpose::default())?;
        let white = reshape(g, white, [channels, n, pixels])?;
        let statistics = Statistics {
            mean: reshape(g, mean, [1, 1, block])?,
            cov,
            deconv: reshape(g, deconv, [1, block, block])?,
            factors: None,
        };
        Ok((permute(g, white, &[1, 0, 2])?, statistics))
    }

    fn standardise(
        &self,
        g: &mut Graph,
        images: TensorId,
        step: usize,
        weight: Option<TensorId>,
    ) -> Result<TensorId> {
        let shape = g.shape(images).clone();
        let &[n, channels, pixels] = shape.dims() else {
            return Err(Error::shape("channel_deconv", "images are not [N, C, HW]"));
        };
        let running_mean = g.buffer("running_rest_mean", [1], Init::Constant(0.0))?;
        let running_var = g.buffer("running_rest_var", [1], Init::Constant(1.0))?;
        let (mean, var) = match weight {
            None => (running_mean, running_var),
            Some(weight) => {
                let len = channels * pixels;
                let flat = reshape(g, images, [n, len])?;
                let sample = slice(g, flat, 1, 0, step, len.div_ceil(step))?;
                let count = g.shape(sample).len();
                let mean = mean_to(g, sample, [1])?;
                let centred = sub(g, sample, mean)?;
                let squared = square(g, centred)?;
                let divisor = count.saturating_sub(1).max(1) as f32;
                let var = reduce_sum(g, squared, [1], 1.0 / divisor)?;
                move_towards(g, running_mean, mean, weight)?;
                move_towards(g, running_var, var, weight)?;
                (mean, var)
            }
        };
        let shifted = affine(g, var, 1.0, self.options.eps)?;
        let std = sqrt(g, shifted)?;
        let centred = sub(g, images, mean)?;
        div(g, centred, std)
    }
}

/// state = (1 - weight) * state + weight * value, `weight` one number on the GPU.
fn move_towards(g: &mut Graph, state: TensorId, value: TensorId, weight: TensorId) -> Result<()> {
    let rest = affine(g, weight, -1.0, 1.0)?;
    let kept = mul(g, state, rest)?;
    let added = mul(g, value, weight)?;
    let next = add(g, kept, added)?;
    g.assign(state, next)
}
