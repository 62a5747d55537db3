//! Batch normalisation with running statistics.

use super::deconv::blend;
use super::{Layer, Mode};
use crate::Error;
use crate::graph::{Init, Tensor};

/// States: `weight`, `bias` (if `affine`), `running_mean`, `running_var`, each `[C]`. The running
/// variance is the unbiased one, as in PyTorch.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// C.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Weight of the new value in running statistics.
    pub momentum: f32,
    /// Whether there are a weight and a bias.
    pub affine: bool,
}

impl BatchNorm {
    /// With PyTorch's defaults: eps 1e-5, momentum 0.1, affine.
    #[must_use]
    pub const fn new(channels: usize) -> Self {
        Self {
            channels,
            eps: 1e-5,
            momentum: 0.1,
            affine: true,
        }
    }

    /// Added to the variance; 1e-5 at first.
    #[must_use]
    pub const fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Weight of the new value in running statistics, from 0 to 1; 0.1 at first.
    #[must_use]
    pub const fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Whether there are a weight and a bias; there are at first.
    #[must_use]
    pub const fn affine(mut self, affine: bool) -> Self {
        self.affine = affine;
        self
    }
}

impl Layer for BatchNorm {
    /// `x` [N, C, H, W] or [N, C], to the same shape.
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        let (g, c) = (x.graph(), self.channels);
        if x.shape().dims().get(1) != Some(&c) {
            let message = format!("{} does not have {c} channels", x.shape());
            g.fail(Error::shape("batch_norm", message));
            return x;
        }
        let (weight, bias) = match self.affine {
            true => (
                g.parameter("weight", [c], Init::Constant(1.0)),
                g.parameter("bias", [c], Init::Constant(0.0)),
            ),
            false => (g.constant(1.0, [c]), g.constant(0.0, [c])),
        };
        let running_mean = g.statistic("running_mean", [c], Init::Constant(0.0));
        let running_var = g.statistic("running_var", [c], Init::Constant(1.0));
        // Not `x.batch_norm`, whose gradient takes the statistics for those of `x` itself.
        let normalised = |mean: Tensor<'g>, var: Tensor<'g>| {
            let factor = weight * (var + self.eps).rsqrt();
            let mut per_channel = vec![1; x.rank()];
            per_channel[1] = c;
            let of_x = |t: Tensor<'g>| t.reshape(per_channel.clone());
            (x - of_x(mean)) * of_x(factor) + of_x(bias)
        };
        if mode == Mode::Eval {
            return normalised(running_mean, running_var);
        }
        let batch = x.batch_statistics();
        let (mean, var) = (batch.mean.reshape([c]), batch.var.reshape([c]));
        let ranks = g.among().sync_ranks();
        let count = (ranks * batch.count) as f32;
        let unbiased = var * (count / (count - 1.0).max(1.0));
        running_mean.assign(blend(running_mean, mean, self.momentum));
        running_var.assign(blend(running_var, unbiased, self.momentum));
        match ranks {
            1 => x.batch_norm(batch, weight, bias, self.eps),
            _ => normalised(mean, var),
        }
    }
}
