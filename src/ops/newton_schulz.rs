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

use crate::Error;
use crate::graph::{Op, Tensor};
use crate::ops::MatMul;
use crate::shape::Shape;

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

/// See [`Tensor::newton_schulz`]. The output is the first input, Z after `n_iter` iterations; the second
/// is the first Y, of which it is a function.
#[derive(Debug, PartialEq)]
struct NewtonSchulz {
    n_iter: usize,
    cov_grad: CovGrad,
}

impl Tensor<'_> {
    /// Inverse square root of a batch of covariances (paper section 3.5, Denman–Beavers).
    ///
    /// This: cov [groups, features, features], symmetric positive definite.
    /// Returns deconv, [groups, features, features]. Differentiable through every iteration (Eq. 4).
    ///
    /// Fails if the last two sizes differ or `n_iter` is 0.
    #[must_use]
    #[track_caller]
    pub fn newton_schulz(self, n_iter: usize, cov_grad: CovGrad) -> Self {
        let g = self.graph();
        let [groups, features, columns] = self.dims();
        if features != columns {
            let message = format!("{self:?} is not square");
            g.fail(Error::shape("newton_schulz", message));
            return self;
        }
        if n_iter == 0 {
            g.fail(Error::graph("newton_schulz", "n_iter is 0"));
            return self;
        }
        g.scope("newton_schulz", || {
            let cov_norm = self.square().reduce_sum([groups, 1, 1], 1.0).sqrt();
            let y = self / cov_norm;
            let (_, z) = iterate(y, n_iter);
            let z = g.add(NewtonSchulz { n_iter, cov_grad }, &[z, y]);
            z * cov_norm.rsqrt()
        })
    }
}

/// One or two iterations: what they begin with, and the G that they multiply Y and Z by.
struct Factor<'g> {
    y: Tensor<'g>,
    /// None for the identity.
    z: Option<Tensor<'g>>,
    g: Tensor<'g>,
    /// Of two iterations at once.
    quartic: Option<Quartic<'g>>,
}

/// G = U V of two iterations, and what U and V are made of.
#[derive(Clone, Copy)]
struct Quartic<'g> {
    m: Tensor<'g>,
    u: Tensor<'g>,
    v: Tensor<'g>,
}

/// Whether products that make Y or Z, and those that make a factor, are computed by half.
fn by_half(features: usize, n_iter: usize) -> (bool, bool) {
    let large = features > WHOLE_FEATURES;
    (large, large && n_iter <= MAX_HALF_FACTOR)
}

/// All factors from the first Y, and the last Z.
fn iterate<'g>(mut y: Tensor<'g>, n_iter: usize) -> (Vec<Factor<'g>>, Tensor<'g>) {
    let (half, half_factor) = by_half(y.size(1), n_iter);
    let product = |a: Tensor<'g>, b, symmetric| {
        let op = MatMul {
            symmetric,
            ..MatMul::default()
        };
        a.matmul_with(b, None, op)
    };
    let mut factors: Vec<Factor<'g>> = Vec::with_capacity(n_iter.div_ceil(2));
    let mut z = None;
    for first in (0..n_iter).step_by(2) {
        if let Some(before) = factors.last() {
            y = product(y, before.g, half);
        }
        let m = z.map_or(y, |z| product(z, y, half_factor));
        let (g, quartic) = if first + 1 < n_iter {
            let n = product(m, m, half_factor);
            let (u, v) = (quadratic(n, m, U), quadratic(n, m, V));
            let factor = product(u, v, half_factor);
            (factor, Some(Quartic { m, u, v }))
        } else {
            (-0.5 * m + identity_times(m, 1.5), None)
        };
        factors.push(Factor { y, z, g, quartic });
        // The first Z is the identity.
        z = Some(z.map_or(g, |z| product(g, z, half)));
    }
    // There is at least one iteration, so there is a Z.
    (factors, z.unwrap_or(y))
}

/// U or V: N, M and the identity, each times its factor.
fn quadratic<'g>(n: Tensor<'g>, m: Tensor<'g>, factors: [f64; 3]) -> Tensor<'g> {
    let [of_n, of_m, diagonal] = factors.map(|factor| factor as f32);
    of_n * n + of_m * m + identity_times(m, diagonal)
}

/// `factor` on the diagonal, of the shape of `like`: a product of nothing with nothing, plus the
/// diagonal.
pub(super) fn identity_times<'g>(like: Tensor<'g>, factor: f32) -> Tensor<'g> {
    let ([groups, features, _], g) = (like.dims(), like.graph());
    let zero_column = g.constant(0.0, [groups, features, 1]);
    let zero_row = g.constant(0.0, [groups, 1, features]);
    let op = MatMul {
        diag: factor,
        ..MatMul::default()
    };
    zero_column.matmul_with(zero_row, None, op)
}
impl Op for NewtonSchulz {
    fn name(&self) -> &'static str {
        "newton_schulz"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, z_n: Tensor<'g>, z_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [_, y] = z_n.inputs();
        let symmetric = self.cov_grad == CovGrad::Symmetric;
        let mut dy = z_grad;
        if symmetric && !z_grad.is_symmetric() {
            dy = 0.5 * (z_grad + z_grad.permute(&[0, 2, 1]));
        }
        let (half, half_factor) = by_half(y.size(1), self.n_iter);
        let (half, half_factor) = (symmetric && half, symmetric && half_factor);
        // alpha (a b + c d): the derivative of a product.
        let sum = |alpha, symmetric, [a, b]: [Tensor<'g>; 2], [c, d]: [Tensor<'g>; 2]| {
            let op = MatMul {
                alpha,
                symmetric,
                ..MatMul::default()
            };
            c.matmul_with(d, Some(a.matmul_with(b, None, op)), op)
        };
        // Common sub-expressions of the forward pass: not computed twice.
        let (factors, _) = iterate(y, self.n_iter);
        let mut dz: Option<Tensor<'g>> = None;
        for (i, factor) in factors.iter().enumerate() {
            let is_last = i + 1 == factors.len();
            let &Factor { y, z, g, .. } = factor;
            // M = Z Y
            let dm = |alpha| match (z, dz) {
                (Some(z), Some(dz)) => sum(alpha, half_factor, [dz, y], [z, dy]),
                _ => alpha * dy,
            };
            let dg = match factor.quartic {
                None => dm(-0.5),
                Some(Quartic { m, u, v }) => {
                    let dm = dm(1.0);
                    let dn = sum(1.0, half_factor, [dm, m], [m, dm]);
                    let [du, dv] = [U, V].map(|by| (by[0] as f32) * dn + (by[1] as f32) * dm);
                    sum(1.0, half_factor, [du, v], [u, dv])
                }
            };
            // The last Y is not used.
            if !is_last {
                dy = sum(1.0, half, [dy, g], [y, dg]);
            }
            dz = Some(match (z, dz) {
                (Some(z), Some(dz)) => sum(1.0, half, [dg, z], [g, dz]),
                _ => dg,
            });
        }
        vec![None, dz]
    }

    fn is_view(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::CovGrad;
    use crate::ops::gradients::{Case, case, check, check_tiled, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for cov_grad in [CovGrad::Whole, CovGrad::Symmetric] {
            for n_iter in [1, 2, 5, 8] {
                cases.push(
                    case(
                        &format!("newton_schulz {n_iter} {cov_grad:?}"),
                        &[&[2, 17, 6]],
                        move |x| x[0].covariance(0.05).newton_schulz(n_iter, cov_grad),
                        move |x| {
                            reference::newton_schulz(&reference::covariance(&x[0], 0.05), n_iter)
                        },
                    )
                    .tolerance(3e-5),
                );
            }
        }
        // More features than a tile has rows: tiles above the diagonal are mirrored.
        cases.push(
            case(
                "newton_schulz of 70",
                &[&[1, 200, 70]],
                |x| x[0].covariance(0.05).newton_schulz(5, CovGrad::Symmetric),
                |x| reference::newton_schulz(&reference::covariance(&x[0], 0.05), 5),
            )
            .tolerance(3e-5),
        );
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("newton_schulz", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("newton_schulz", &cases());
    }
}
