//! Batch normalisation (Ioffe and Szegedy 2015): y = (x - mean) / sqrt(var + eps) * weight + bias,
//! mean and biased variance per channel.
//!
//! A function of other ops but for its gradient, which is given in the closed form: the one that
//! differentiation of the formula would build reads x and the output's gradient twice as often.
//! Bound: x read three times forward (mean, variance, result); x and the gradient read twice
//! backward.

use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// y from x and statistics that are those of x itself. See [`Tensor::batch_norm`].
#[derive(Debug, PartialEq)]
pub struct BatchNorm {
    eps: f32,
}

/// Mean and variance per channel, of shape [1, C, 1, 1] or [1, C].
#[derive(Clone, Copy, Debug)]
pub struct BatchStatistics<'g> {
    /// Mean over batch and pixels.
    pub mean: Tensor<'g>,
    /// Variance over batch and pixels, divisor the count (biased).
    pub var: Tensor<'g>,
    /// How many values each was taken over, those of this rank.
    pub count: usize,
}

impl<'g> Tensor<'g> {
    /// Mean and variance of each channel of this [N, C, H, W] or [N, C], of the images of all ranks if the graph wants it so
    /// ([`crate::graph::Among`]). Fails if it has fewer than 2 dimensions.
    #[track_caller]
    pub fn batch_statistics(self) -> BatchStatistics<'g> {
        let per_channel = channel_shape(&self.shape()).unwrap_or_else(|_| [1].into());
        let count = self.len() / self.size(1).max(1);
        let mean = self.mean_to(per_channel.clone()).over_ranks();
        let var = (self - mean).square().mean_to(per_channel).over_ranks();
        BatchStatistics { mean, var, count }
    }

    /// This normalised by `statistics`, which must be [`Tensor::batch_statistics`] of this very tensor: the
    /// gradient with respect to it includes the path through them. `weight`, `bias`: `[C]`. Fails if the sizes do not fit.
    #[must_use]
    #[track_caller]
    pub fn batch_norm(
        self,
        statistics: BatchStatistics<'g>,
        weight: Self,
        bias: Self,
        eps: f32,
    ) -> Self {
        let BatchStatistics { mean, var, .. } = statistics;
        let weight = weight.reshape(mean.shape());
        let bias = bias.reshape(mean.shape());
        let inputs = [self, mean, var, weight, bias];
        self.graph().add(BatchNorm { eps }, &inputs)
    }
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

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [x, mean, var, weight, _] = y.inputs();
        let per_channel = mean.shape();
        let count = (x.len() / per_channel.len()) as f32;
        let inverse_std = (var + self.eps).rsqrt();
        let normalised = (x - mean) * inverse_std;
        let weight_grad = (y_grad * normalised).reduce_sum(per_channel.clone(), 1.0);
        let bias_grad = y_grad.reduce_sum(per_channel, 1.0);
        // x' = weight / std * (y' - mean(y') - normalised * mean(y' normalised)).
        let mean_grad = bias_grad * (1.0 / count);
        let mean_product = weight_grad * (1.0 / count);
        let inner = y_grad + -(normalised * mean_product + mean_grad);
        let x_grad = inner * (weight * inverse_std);
        vec![Some(x_grad), None, None, Some(weight_grad), Some(bias_grad)]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(self.program())
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check, check_tiled, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for shape in [&[3, 5, 7, 3][..], &[17, 5], &[3, 131, 2, 2]] {
            let channels = shape[1];
            cases.push(
                case(
                    &format!("batch_norm {shape:?}"),
                    &[shape, &[channels], &[channels]],
                    |x| x[0].batch_norm(x[0].batch_statistics(), x[1], x[2], 1e-3),
                    |x| reference::batch_norm(&x[0], &x[1], &x[2], 1e-3),
                )
                .tolerance(3e-5),
            );
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("batch_norm", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("batch_norm", &cases());
    }
}
