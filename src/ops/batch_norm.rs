//! Batch normalisation (Ioffe and Szegedy 2015): y = (x - mean) / sqrt(var + eps) * weight + bias,
//! mean and biased variance per channel.
//!
//! A function of other ops but for its gradient, which is given in the closed form: the one that
//! differentiation of the formula would build reads x and the output's gradient twice as often.
//! Bound: x read three times forward (mean, variance, result); x and the gradient read twice
//! backward.

use crate::graph::op::{Lowered, Lowering};
use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{
    add, affine, mean_to, mul, neg, pointwise, reduce_sum, reshape, rsqrt, scale, square, sub,
};
use crate::shape::Shape;
use crate::{Error, Result};

/// y from x and statistics that are those of x itself. See [`batch_norm`].
#[derive(Debug)]
pub struct BatchNorm {
    eps: f32,
}

/// Mean and variance per channel, of shape [1, C, 1, 1] or [1, C].
#[derive(Clone, Copy, Debug)]
pub struct BatchStatistics {
    /// Mean over batch and pixels.
    pub mean: TensorId,
    /// Variance over batch and pixels, divisor the count (biased).
    pub var: TensorId,
    /// How many values each was taken over.
    pub count: usize,
}

/// Mean and variance of each channel of `x` ([N, C, H, W] or [N, C]).
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has fewer than 2 dimensions.
pub fn batch_statistics(g: &mut Graph, x: TensorId) -> Result<BatchStatistics> {
    let per_channel =
        channel_shape(g.shape(x)).map_err(|message| Error::shape("batch_norm", message))?;
    let count = g.shape(x).len() / per_channel.len();
    let mean = mean_to(g, x, per_channel.clone())?;
    let centred = sub(g, x, mean)?;
    let squared = square(g, centred)?;
    let var = mean_to(g, squared, per_channel)?;
    Ok(BatchStatistics { mean, var, count })
}

/// `x` normalised by `statistics`, which must be [`batch_statistics`] of this very `x`: the
/// gradient with respect to `x` includes the path through them. `weight`, `bias`: `[C]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the sizes do not fit.
pub fn batch_norm(
    g: &mut Graph,
    x: TensorId,
    statistics: BatchStatistics,
    weight: TensorId,
    bias: TensorId,
    eps: f32,
) -> Result<TensorId> {
    let per_channel = g.shape(statistics.mean).clone();
    let weight = reshape(g, weight, per_channel.clone())?;
    let bias = reshape(g, bias, per_channel)?;
    let inputs = [x, statistics.mean, statistics.var, weight, bias];
    g.add(BatchNorm { eps }, &inputs)
}

fn channel_shape(x: &Shape) -> Result<Shape, String> {
    let mut dims = vec![1; x.rank()];
    match x.dims() {
        [_, channels, ..] => dims[1] = *channels,
        _ => return Err(format!("{x} has no channels")),
    }
    Ok(dims.into())
}

impl BatchNorm {
    fn program(&self) -> Pointwise {
        let eps = literal(self.eps);
        Pointwise::expression(
            format!("({{0}} - {{1}}) / sqrt({{2}} + {eps}) * {{3}} + {{4}}"),
            5,
        )
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let per_channel = channel_shape(inputs[0])?;
        match inputs[1..].iter().find(|s| ***s != per_channel) {
            Some(other) => Err(format!("{other} is not {per_channel}")),
            None => Ok(inputs[0].clone()),
        }
    }

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        y_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let &[x, mean, var, weight, _] = g.node(node).inputs.as_slice() else {
            return Err(Error::bug("batch_norm has another number of inputs than 5"));
        };
        let per_channel = g.shape(mean).clone();
        let count = (g.shape(x).len() / per_channel.len()) as f32;
        let shifted = affine(g, var, 1.0, self.eps)?;
        let inverse_std = rsqrt(g, shifted)?;
        let centred = sub(g, x, mean)?;
        let normalised = mul(g, centred, inverse_std)?;
        let product = mul(g, y_grad, normalised)?;
        let weight_grad = reduce_sum(g, product, per_channel.clone(), 1.0)?;
        let bias_grad = reduce_sum(g, y_grad, per_channel, 1.0)?;
        // x' = weight / std * (y' - mean(y') - normalised * mean(y' normalised)).
        let mean_grad = scale(g, bias_grad, 1.0 / count)?;
        let mean_product = scale(g, weight_grad, 1.0 / count)?;
        let along = mul(g, normalised, mean_product)?;
        let both = add(g, along, mean_grad)?;
        let both = neg(g, both)?;
        let inner = add(g, y_grad, both)?;
        let factor = mul(g, weight, inverse_std)?;
        let x_grad = mul(g, inner, factor)?;
        Ok(vec![
            Some(x_grad),
            None,
            None,
            Some(weight_grad),
            Some(bias_grad),
        ])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        pointwise::lower(&self.program(), ctx)
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(self.program())
    }
}
