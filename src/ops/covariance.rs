//! Covariance of centred rows (section 3.1): (1 / rows) X^T X + eps I, a tall Gram matrix.
//!
//! The rows are centred before (two passes): E[x x^T] - mean mean^T in one pass loses four digits
//! at mean / std = 100 and gives negative eigenvalues at 1000.
//! Bound: rows * features^2 operations (half of the product, by symmetry).

use crate::graph::op::{Lowered, Lowering, Slot};
use crate::graph::{Cost, Graph, Op, Symmetry, TensorId};
use crate::ops::contraction::Contraction;
use crate::ops::{MatMul, add, matmul_with, permute};
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`covariance`].
#[derive(Debug)]
pub struct Covariance {
    eps: f32,
}

/// Of `centred` [groups, rows, features], whose columns have mean zero:
/// cov [groups, features, features] = centred^T centred / rows + `eps` I.
///
/// # Errors
/// [`Error::Shape`] if `centred` does not have 3 dimensions.
pub fn covariance(g: &mut Graph, centred: TensorId, eps: f32) -> Result<TensorId> {
    g.add(Covariance { eps }, &[centred])
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

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        cov_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let centred = g.node(node).inputs[0];
        let rows = g.shape(centred).dims()[1] as f32;
        // The sum of the gradient and its transpose.
        let (both, factor) = if g.is_symmetric(cov_grad) {
            (cov_grad, 2.0)
        } else {
            let transposed = permute(g, cov_grad, &[0, 2, 1])?;
            (add(g, cov_grad, transposed)?, 1.0)
        };
        let op = MatMul {
            alpha: factor / rows,
            ..MatMul::default()
        };
        let grad = matmul_with(g, centred, both, None, op)?;
        Ok(vec![Some(grad)])
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
            return Err(Error::shape(
                "covariance",
                "input is not [groups, rows, features]",
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
