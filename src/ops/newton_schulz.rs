//! Inverse square root of covariances by the Denman–Beavers iteration in its coupled,
//! inverse-free form (section 3.5), known as Newton–Schulz.
//!
//! s = |cov|_F, Y = cov / s, Z = I; `n_iter` times T = (3 I - Z Y) / 2, Y = Y T, Z = T Z; the result
//! is Z / sqrt(s). This order of products is the stable one: orders equal in exact arithmetic
//! overflow after 15 to 20 iterations in f32.
//!
//! Two iterations are computed at once. With M = Z Y they multiply Z by T(M) T(M T(M)^2), a polynomial
//! of degree 4 in M. It has two real roots, so it is a product of two real quadratics:
//!
//! N = M^2, U = (N - (3 + r) M + 3 r I) / 4, V = (N + (r - 6) M + (12 / r) I) / 4, G = U V,
//!
//! where r = 4.6128... is the real root of r^3 - 6 r^2 + 9 r - 12. That is 5 products (M, N, G, Y G, G Z)
//! in place of 6. On [0, 1], where the eigenvalues of M lie, U is in [1.81, 3.46] and V in [.55, .65]:
//! nothing cancels. An odd `n_iter` ends with a single iteration.
//!
//! Every iterate is a polynomial p(Y) of the first Y. So all are symmetric, and half of a product is
//! enough; and the derivative of p at a symmetric Y is its own adjoint, so that the gradient is what
//! the derivative makes of it: the iteration differentiated forwards, dM = dZ Y + Z dY and so
//! on, begun with dY = the gradient of Z. That is exact through every iteration, and where only the
//! symmetric part is wanted its products are symmetric too. The gradient through s is that of the ops.
//!
//! Bound: with 5 iterations 10 products by half (features^3 operations each) forward and 20 backward; in
//! general 5/2 `n_iter` - 3 (even) or 5/2 (`n_iter` - 1) (odd) forward and twice that backward.

use crate::graph::op::{Lowered, Lowering};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{
    MatMul, add, constant, div, matmul_with, mul, permute, reduce_sum, rsqrt, scale, sqrt, square,
};
use crate::shape::Shape;
use crate::{Error, Result};

/// The real root of r^3 - 6 r^2 + 9 r - 12, see above.
const ROOT: f64 = 4.612_887_864_717_544;

/// U and V of two iterations: what N, M and the identity are multiplied by.
pub(super) const U: [f64; 3] = [0.25, -(3.0 + ROOT) / 4.0, 0.75 * ROOT];
pub(super) const V: [f64; 3] = [0.25, (ROOT - 6.0) / 4.0, 3.0 / ROOT];

/// Most iterations for which M, N and G are computed by half, as Y and Z always are.
///
/// Rounding leaves Y and Z that do not quite commute, and Z Y not quite symmetric. The asymmetric
/// part is what makes this order of products stable; without it that error grows in every iteration
/// after the eigenvalues have converged. Errors of deconv on natural covariances in f32 against f64
/// (300 features after `ReLU`), all of these products / half of them: 5 iterations 6e-6 / 6e-6, 10
/// 8e-6 / 8e-6, 15 1.1e-4 / 3.9e-4, 20 2.3e-4 / 4, 30 2.3e-4 / overflow. One iteration at a time, all
/// of T: 8e-6, 9e-6, 1.5e-4, 3.3e-4, 3.3e-4.
const MAX_HALF_FACTOR: usize = 7;

/// Features up to which a product by half would leave out no tile, or next to none.
pub(crate) const WHOLE_FEATURES: usize = 64;

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
    if features != columns {
        let message = format!("{} is not square", g.shape(cov));
        return Err(Error::shape("newton_schulz", message));
    }
    if n_iter == 0 {
        return Err(Error::graph("newton_schulz", "n_iter is 0"));
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

/// One or two iterations: what they begin with, and the G that they multiply Y and Z by.
struct Factor {
    y: TensorId,
    /// None for the identity.
    z: Option<TensorId>,
    g: TensorId,
    /// Of two iterations at once.
    quartic: Option<Quartic>,
}

/// G = U V of two iterations, and what U and V are made of.
struct Quartic {
    m: TensorId,
    u: TensorId,
    v: TensorId,
}

/// Whether products that make Y or Z, and those that make a factor, are computed by half.
fn by_half(features: usize, n_iter: usize) -> (bool, bool) {
    let large = features > WHOLE_FEATURES;
    (large, large && n_iter <= MAX_HALF_FACTOR)
}

/// All factors from the first Y, and the last Z.
fn iterate(g: &mut Graph, mut y: TensorId, n_iter: usize) -> Result<(Vec<Factor>, TensorId)> {
    let (half, half_factor) = by_half(g.shape(y).dims()[1], n_iter);
    let product = MatMul {
        symmetric: half,
        ..MatMul::default()
    };
    let factor_product = MatMul {
        symmetric: half_factor,
        ..MatMul::default()
    };
    let mut factors: Vec<Factor> = Vec::with_capacity(n_iter.div_ceil(2));
    let mut z = None;
    for first in (0..n_iter).step_by(2) {
        if let Some(before) = factors.last() {
            y = matmul_with(g, y, before.g, None, product)?;
        }
        let m = match z {
            None => y,
            Some(z) => matmul_with(g, z, y, None, factor_product)?,
        };
        let (factor, quartic) = if first + 1 < n_iter {
            let quartic = quartic(g, m, factor_product)?;
            let factor = matmul_with(g, quartic.u, quartic.v, None, factor_product)?;
            (factor, Some(quartic))
        } else {
            (combine(g, &[(m, -0.5)], 1.5)?, None)
        };
        factors.push(Factor {
            y,
            z,
            g: factor,
            quartic,
        });
        z = Some(match z {
            // The first Z is the identity.
            None => factor,
            Some(z) => matmul_with(g, factor, z, None, product)?,
        });
    }
    // There is at least one iteration, so there is a Z.
    Ok((factors, z.unwrap_or(y)))
}

/// U and V of two iterations on M.
fn quartic(g: &mut Graph, m: TensorId, product: MatMul) -> Result<Quartic> {
    let n = matmul_with(g, m, m, None, product)?;
    Ok(Quartic {
        m,
        u: combine(g, &[(n, U[0]), (m, U[1])], U[2])?,
        v: combine(g, &[(n, V[0]), (m, V[1])], V[2])?,
    })
}

/// The sum of `terms`, each times its factor, plus `diagonal` times the identity.
fn combine(g: &mut Graph, terms: &[(TensorId, f64)], diagonal: f64) -> Result<TensorId> {
    let mut sum = None;
    for &(term, factor) in terms {
        let term = scale(g, term, factor as f32)?;
        sum = Some(match sum {
            None => term,
            Some(sum) => add(g, sum, term)?,
        });
    }
    let (Some(sum), true) = (sum, diagonal != 0.0) else {
        return sum.ok_or_else(|| Error::bug("newton_schulz makes a sum of nothing"));
    };
    let identity = identity_times(g, sum, diagonal as f32)?;
    add(g, sum, identity)
}

/// `factor` on the diagonal, of the shape of `like`: a product of nothing with nothing, plus the
/// diagonal.
pub(super) fn identity_times(g: &mut Graph, like: TensorId, factor: f32) -> Result<TensorId> {
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
        if symmetric && !g.is_symmetric(output_grad) {
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
        let (half, half_factor) = by_half(g.shape(y).dims()[1], self.n_iter);
        let (half, half_factor) = (symmetric && half, symmetric && half_factor);
        // Common sub-expressions of the forward pass: not computed twice.
        let (factors, _) = iterate(g, y, self.n_iter)?;
        let mut dz: Option<TensorId> = None;
        for (i, factor) in factors.iter().enumerate() {
            let is_last = i + 1 == factors.len();
            let &Factor { y, z, g: value, .. } = factor;
            // M = Z Y
            let dm = |g: &mut Graph, alpha| match (z, dz) {
                (Some(z), Some(dz)) => sum(g, alpha, half_factor, [dz, y], [z, dy]),
                _ => scale(g, dy, alpha),
            };
            let d_value = match &factor.quartic {
                None => dm(g, -0.5)?,
                Some(Quartic { m, u, v }) => {
                    let (dm, m) = (dm(g, 1.0)?, *m);
                    let dn = sum(g, 1.0, half_factor, [dm, m], [m, dm])?;
                    let du = combine(g, &[(dn, U[0]), (dm, U[1])], 0.0)?;
                    let dv = combine(g, &[(dn, V[0]), (dm, V[1])], 0.0)?;
                    sum(g, 1.0, half_factor, [du, *v], [*u, dv])?
                }
            };
            // The last Y is not used.
            if !is_last {
                dy = sum(g, 1.0, half, [dy, value], [y, d_value])?;
            }
            dz = Some(match (z, dz) {
                (Some(z), Some(dz)) => sum(g, 1.0, half, [d_value, z], [value, dz])?,
                _ => d_value,
            });
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
