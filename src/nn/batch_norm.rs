//! Batch normalisation with running statistics.

use super::Mode;
use super::deconv::blend;
use crate::graph::{Graph, Init, TensorId};
use crate::ops::{self, add, affine, batch_statistics, constant, mul, reshape, rsqrt, scale, sub};
use crate::{Error, Result};

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
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            eps: 1e-5,
            momentum: 0.1,
            affine: true,
        }
    }

    /// `x` [N, C, H, W] or [N, C], to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have C channels.
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        let c = self.channels;
        if g.shape(x).dims().get(1) != Some(&c) {
            let message = format!("{} does not have {c} channels", g.shape(x));
            return Err(Error::shape("batch_norm", message));
        }
        let (weight, bias) = if self.affine {
            (
                g.parameter("weight", [c], Init::Constant(1.0))?,
                g.parameter("bias", [c], Init::Constant(0.0))?,
            )
        } else {
            (constant(g, 1.0, [c])?, constant(g, 0.0, [c])?)
        };
        let running_mean = g.buffer("running_mean", [c], Init::Constant(0.0))?;
        let running_var = g.buffer("running_var", [c], Init::Constant(1.0))?;
        if mode == Mode::Eval {
            return self.by_running(g, x, running_mean, running_var, [weight, bias]);
        }
        let statistics = batch_statistics(g, x)?;
        let count = statistics.count as f32;
        let mean = reshape(g, statistics.mean, [c])?;
        let var = reshape(g, statistics.var, [c])?;
        let unbiased = scale(g, var, count / (count - 1.0).max(1.0))?;
        for (running, value) in [(running_mean, mean), (running_var, unbiased)] {
            let next = blend(g, running, value, self.momentum)?;
            g.assign(running, next)?;
        }
        ops::batch_norm(g, x, statistics, weight, bias, self.eps)
    }

    /// By statistics that are constants of `x`. (The gradient of [`ops::batch_norm`] takes them for those of `x` itself.)
    fn by_running(
        &self,
        g: &mut Graph,
        x: TensorId,
        mean: TensorId,
        var: TensorId,
        [weight, bias]: [TensorId; 2],
    ) -> Result<TensorId> {
        let shifted = affine(g, var, 1.0, self.eps)?;
        let inverse_std = rsqrt(g, shifted)?;
        let factor = mul(g, weight, inverse_std)?;
        let mut per_channel = vec![1; g.shape(x).rank()];
        per_channel[1] = self.channels;
        let mut of_x = |t| reshape(g, t, per_channel.clone());
        let (mean, factor, bias) = (of_x(mean)?, of_x(factor)?, of_x(bias)?);
        let centred = sub(g, x, mean)?;
        let scaled = mul(g, centred, factor)?;
        add(g, scaled, bias)
    }
}
