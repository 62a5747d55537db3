//! Inverse square root of covariances by the Denman–Beavers iteration in its coupled,
//! inverse-free form (section 3.5), known as Newton–Schulz.
//!
//! s = |cov|_F, Y = cov / s, Z = I; `n_iter` times T = (3 I - Z Y) / 2, Y = Y T, Z = T Z; the result
//! is Z / sqrt(s). This order of products is the stable one: orders equal in exact arithmetic
//! overflow after 15 to 20 iterations in f32.
//!
//! A function of other ops, so that its gradient is exact through every iteration and the norm.
//! Bound: 6 `n_iter` features^3 operations forward, twice that backward.

use crate::graph::{Graph, TensorId};
use crate::ops::{Transpose, constant, div, matmul_with, mul, reduce_sum, rsqrt, sqrt, square};
use crate::{Error, Result};

/// Inverse square root of a batch of covariances (paper section 3.5, Denman–Beavers).
///
/// `cov`: [groups, features, features], symmetric positive definite.
/// Returns `deconv`, [groups, features, features]. Differentiable through every iteration (Eq. 4).
///
/// # Errors
/// [`Error::Shape`] if the last two sizes differ or `n_iter` is 0.
pub fn newton_schulz(g: &mut Graph, cov: TensorId, n_iter: usize) -> Result<TensorId> {
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
        let mut y = div(g, cov, cov_norm)?;
        let none = Transpose::default();
        let product = |g: &mut Graph, a, b| matmul_with(g, a, b, None, none, 1.0, 0.0);
        // The first Z is the identity: T = (3 I - Y) / 2 and Z = T need no product.
        let mut z: Option<TensorId> = None;
        for i in 0..n_iter {
            let t = match z {
                None => {
                    let identity = identity_times(g, groups, features, 1.5)?;
                    let half = crate::ops::scale(g, y, 0.5)?;
                    crate::ops::sub(g, identity, half)?
                }
                Some(z) => matmul_with(g, z, y, None, none, -0.5, 1.5)?,
            };
            z = Some(match z {
                None => t,
                Some(z) => product(g, t, z)?,
            });
            // The last Y would not be used.
            if i + 1 < n_iter {
                y = product(g, y, t)?;
            }
        }
        let inverse_root_norm = rsqrt(g, cov_norm)?;
        let z = z.ok_or_else(|| Error::shape("newton_schulz", "n_iter is 0"))?;
        mul(g, z, inverse_root_norm)
    })
}

/// `factor` on the diagonal: a product of nothing with nothing, plus the diagonal.
fn identity_times(g: &mut Graph, groups: usize, features: usize, factor: f32) -> Result<TensorId> {
    let zero_column = constant(g, 0.0, [groups, features, 1])?;
    let zero_row = constant(g, 0.0, [groups, 1, features])?;
    let none = Transpose::default();
    matmul_with(g, zero_column, zero_row, None, none, 1.0, factor)
}
