//! Covariance of centred rows (section 3.1): (1 / rows) X^T X + eps I, a tall Gram matrix.
//!
//! The rows are centred before (two passes): E[x x^T] - mean mean^T in one pass loses four digits
//! at mean / std = 100 and gives negative eigenvalues at 1000.
//! Bound: rows * features^2 operations (half of the product, by symmetry).

use crate::graph::op::{Lowered, Lowering, Slot};
use crate::graph::{Cost, Op, Symmetry, Tensor};
use crate::ops::MatMul;
use crate::ops::contraction::Contraction;
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`Tensor::covariance`].
#[derive(Debug, PartialEq)]
pub struct Covariance {
    eps: f32,
}

impl Tensor<'_> {
    /// Of centred rows, [groups, rows, features], whose columns have mean zero:
    /// cov [groups, features, features] = centred^T centred / rows + `eps` I. Fails if it does not have 3 dimensions.
    #[must_use]
    #[track_caller]
    pub fn covariance(self, eps: f32) -> Self {
        self.apply(Covariance { eps })
    }
}

impl Op for Covariance {
    fn name(&self) -> &'static str {
        "covariance"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match *inputs[0].dims() {
            [groups, rows, features] if rows > 0 => Ok([groups, features, features].into()),
            _ => Err(format!("{} is not [groups, rows, features]", inputs[0])),
        }
    }

    fn gradient<'g>(&self, cov: Tensor<'g>, cov_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [centred] = cov.inputs();
        let [_, rows, _] = centred.dims();
        // The sum of the gradient and its transpose.
        let (both, factor) = match cov_grad.is_symmetric() {
            true => (cov_grad, 2.0),
            false => (cov_grad + cov_grad.permute(&[0, 2, 1]), 1.0),
        };
        let op = MatMul {
            alpha: factor / rows as f32,
            ..MatMul::default()
        };
        vec![Some(centred.matmul_with(both, None, op))]
    }

    fn symmetry(&self) -> Symmetry {
        Symmetry::Certain
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: (inputs[0].len() * output.dims()[2]) as u64,
            bytes: inputs[0].size_bytes() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let &[groups, rows, features] = ctx.inputs[0].dims() else {
            return Err(Error::bug(
                "covariance of what is not [groups, rows, features]",
            ));
        };
        let mut contraction =
            Contraction::matrix(features, features, rows, [1, features], [features, 1]);
        contraction.batch = groups;
        contraction.a_batch = rows * features;
        contraction.b_batch = rows * features;
        contraction.c_batch = features * features;
        contraction.alpha = 1.0 / rows as f32;
        contraction.diag = self.eps;
        contraction.symmetric = true;
        contraction.lower(
            ctx.variants,
            Slot::Input(0),
            Slot::Input(0),
            None,
            Slot::Output,
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check, check_tiled, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for shape in [[1, 37, 9], [2, 23, 70], [1, 700, 13]] {
            cases.push(case(
                &format!("covariance {shape:?}"),
                &[&shape],
                |x| x[0].covariance(0.01),
                |x| reference::covariance(&x[0], 0.01),
            ));
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("covariance", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("covariance", &cases());
    }
}
