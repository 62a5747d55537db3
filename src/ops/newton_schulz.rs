//! Inverse square root of covariances by the Denman–Beavers iteration in its coupled,
//! inverse-free form (section 3.5), known as Newton–Schulz.
//!
//! s = |cov|_F, Y = cov / s, Z = I; `n_iter` times T = (3 I - Z Y) / 2, Y = Y T, Z = T Z; the result
//! is Z / sqrt(s). This order of products is the stable one: orders equal in exact arithmetic
//! overflow after 15 to 20 iterations in f32.
//!
//! Every iterate is a polynomial p(Y) of the first Y. So all are symmetric, and half of a product is
//! enough; and the derivative of p at a symmetric Y is its own adjoint, so that the gradient is what
//! the derivative makes of it: the iteration differentiated forwards, dT = -(dZ Y + Z dY) / 2 and so
//! on, begun with dY = the gradient of Z. That is exact through every iteration, and where only the
//! symmetric part is wanted its products are symmetric too. The gradient through s is that of the ops.
//!
//! Bound: 3 `n_iter` features^3 operations forward, twice that backward.

use crate::graph::op::{Lowered, Lowering};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{
    MatMul, add, constant, div, matmul_with, mul, permute, reduce_sum, rsqrt, scale, sqrt, square,
    sub,
};
use crate::shape::Shape;
use crate::{Error, Result};

/// Most iterations for which T is computed by half, as Y and Z always are.
///
/// Rounding leaves Y and Z that do not quite commute, and Z Y not quite symmetric. The asymmetric
/// part is what makes this order of products stable; without it that error grows in every iteration
/// after the eigenvalues have converged, at most by sqrt(condition number) / 4. Errors of deconv
/// on natural covariances in f32 against f64, all of T / half of it: 5 iterations 5e-7 / 5e-7, 10
/// 1.2e-5 / 1.3e-5, 15 7e-4 / 1, 30 6e-2 / overflow (rank-deficient, eps 1e-5).
const MAX_HALF_T: usize = 7;

/// Features up to which a product by half would leave out no tile, or next to none.
const WHOLE_FEATURES: usize = 64;

/// What of the gradient of cov is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CovGrad {
    /// All of it, which is not symmetric if the gradient of the result is not.
    Whole,
    /// (G + G^T) / 2 of it, for half of the operations: enough where cov is X^T X.
    Symmetric,
}

/// See [`newton_schulz`]. The output is the first input, Z after `n_iter` iterations; the second
/// is the first Y, of which it is a function.
#[derive(Debug)]
struct NewtonSchulz {
    n_iter: usize,
    cov_grad: CovGrad,
}

/// Inverse square root of a batch of covariances (paper section 3.5, Denman–Beavers).
///
/// `cov`: [groups, features, features], symmetric positive definite.
/// Returns `deconv`, [groups, features, features]. Differentiable through every iteration (Eq. 4).
///
/// # Errors
/// [`Error::Shape`] if the last two sizes differ or `n_iter` is 0.
pub fn newton_schulz(
    g: &mut Graph,
    cov: TensorId,
    n_iter: usize,
    cov_grad: CovGrad,
) -> Result<TensorId> {
    let &[groups, features, columns] = g.shape(cov).dims() else {
        let message = format!("{} is not [groups, features, features]", g.shape(cov));
        return Err(Error::shape("newton_schulz", message));
    };
    if features != columns || n_iter == 0 {
        let message = format!("{} is not square, or n_iter {n_iter} is 0", g.shape(cov));
        return Err(Error::shape("newton_schulz", message));
    }
    g.scope("newton_schulz", |g| {
        let squared = square(g, cov)?;
        let cov_norm_squared = reduce_sum(g, squared, [groups, 1, 1], 1.0)?;
        let cov_norm = sqrt(g, cov_norm_squared)?;
        let y = div(g, cov, cov_norm)?;
        let (_, z) = iterate(g, y, n_iter)?;
        let z = g.add(NewtonSchulz { n_iter, cov_grad }, &[z, y])?;
        let inverse_root_norm = rsqrt(g, cov_norm)?;
        mul(g, z, inverse_root_norm)
    })
}

/// What an iteration begins with, and its T.
struct Iteration {
    y: TensorId,
    /// None for the identity.
    z: Option<TensorId>,
    t: TensorId,
}

/// Whether products that make Y or Z, and those that make T, are computed by half.
fn by_half(features: usize, n_iter: usize) -> (bool, bool) {
    let large = features > WHOLE_FEATURES;
    (large, large && n_iter <= MAX_HALF_T)
}

/// All iterations from the first Y, and the last Z.
fn iterate(g: &mut Graph, mut y: TensorId, n_iter: usize) -> Result<(Vec<Iteration>, TensorId)> {
    let (half, half_t) = by_half(g.shape(y).dims()[1], n_iter);
    let product = MatMul {
        symmetric: half,
        ..MatMul::default()
    };
    let product_t = MatMul {
        alpha: -0.5,
        diag: 1.5,
        symmetric: half_t,
        ..MatMul::default()
    };
    let mut iterations = Vec::with_capacity(n_iter);
    // The first Z is the identity: T = (3 I - Y) / 2 and Z = T need no product.
    let identity = identity_times(g, y, 1.5)?;
    let half_y = scale(g, y, 0.5)?;
    let mut t = sub(g, identity, half_y)?;
    let mut z = t;
    iterations.push(Iteration { y, z: None, t });
    for _ in 1..n_iter {
        y = matmul_with(g, y, t, None, product)?;
        t = matmul_with(g, z, y, None, product_t)?;
        iterations.push(Iteration { y, z: Some(z), t });
        z = matmul_with(g, t, z, None, product)?;
    }
    Ok((iterations, z))
}

/// `factor` on the diagonal, of the shape of `like`: a product of nothing with nothing, plus the
/// diagonal.
fn identity_times(g: &mut Graph, like: TensorId, factor: f32) -> Result<TensorId> {
    let (groups, features) = (g.shape(like).dims()[0], g.shape(like).dims()[1]);
    let zero_column = constant(g, 0.0, [groups, features, 1])?;
    let zero_row = constant(g, 0.0, [groups, 1, features])?;
    let op = MatMul {
        diag: factor,
        ..MatMul::default()
    };
    matmul_with(g, zero_column, zero_row, None, op)
}

impl Op for NewtonSchulz {
    fn name(&self) -> &'static str {
        "newton_schulz"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let y = g.node(node).inputs[1];
        let symmetric = self.cov_grad == CovGrad::Symmetric;
        let mut dy = output_grad;
        if symmetric {
            let transposed = permute(g, output_grad, &[0, 2, 1])?;
            let both = add(g, output_grad, transposed)?;
            dy = scale(g, both, 0.5)?;
        }
        // alpha (a b + c d)
        let sum =
            |g: &mut Graph, alpha, symmetric, [a, b]: [TensorId; 2], [c, d]: [TensorId; 2]| {
                let op = MatMul {
                    alpha,
                    symmetric,
                    ..MatMul::default()
                };
                let first = matmul_with(g, a, b, None, op)?;
                matmul_with(g, c, d, Some(first), op)
            };
        let (half, half_t) = by_half(g.shape(y).dims()[1], self.n_iter);
        let (half, half_t) = (symmetric && half, symmetric && half_t);
        // Common sub-expressions of the forward pass: not computed twice.
        let (iterations, _) = iterate(g, y, self.n_iter)?;
        let mut dz: Option<TensorId> = None;
        for (i, &Iteration { y, z, t }) in iterations.iter().enumerate() {
            let (dt, next) = match (z, dz) {
                (Some(z), Some(dz)) => {
                    let dt = sum(g, -0.5, half_t, [dz, y], [z, dy])?;
                    (dt, sum(g, 1.0, half, [dt, z], [t, dz])?)
                }
                _ => {
                    let dt = scale(g, dy, -0.5)?;
                    (dt, dt)
                }
            };
            // The last Y is not used.
            if i + 1 < self.n_iter {
                dy = sum(g, 1.0, half, [dy, t], [y, dt])?;
            }
            dz = Some(next);
        }
        Ok(vec![None, dz])
    }

    fn lower(&self, _ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Lowered::default())
    }

    fn is_view(&self) -> bool {
        true
    }
}
