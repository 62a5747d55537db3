//! D of the covariance of few rows, by way of their Gram matrix: the iteration of [`newton_schulz`] on
//! rows x rows in place of features x features.
//!
//! With X the centred rows, R of them, Cov / s = a I + X^T X / (R s) where s = |Cov|_F and a = eps / s. Let
//! K = X X^T / (R s). For a polynomial p
//!
//! p(a I + X^T X / (R s)) = p(a) I + X^T q(K) X / (R s), q(K) = (p(a + K) - p(a)) / K,
//!
//! and q, the divided difference of p, is a polynomial too. No quotient is formed: q is carried along by the rule of
//! products, (f g)^ = f^ g(a + K) + f(a) g^. s comes from the Gram matrix as well: s^2 = |X X^T / R|_F^2 +
//! 2 eps tr(X X^T / R) + eps^2 features. All of it is ordinary nodes, differentiated by the rules of their ops.
//!
//! In f32 it is the more exact way of the two: nothing of size 1 is added to the part of D that the rows
//! span.
//!
//! Bound: see [`flops`].
//!
//! [`newton_schulz`]: Tensor::newton_schulz

use super::newton_schulz::{U, V, WHOLE_FEATURES, identity_times};
use crate::Error;
use crate::graph::Tensor;
use crate::ops::{MatMul, Transpose};

/// Most iterations that are computed so. Beyond, products by half are no longer stable, and nobody
/// has looked at this order of products.
const MAX_ITER: usize = 7;

/// Operations of covariance, D and their gradients with [`Tensor::newton_schulz_of_rows`] (`true`) and without, for one
/// group. A product by half counts m^2 k.
///
/// By rows: the divided differences take `products` products by half, 16 for 5 iterations, and their gradients
/// two whole ones each, 5 R^3 in all; X X^T, q X and their gradients 9 R^2 F; X^T q X and its
/// gradient 5 R F^2. By features: 10 products by half, 20 in the gradient; covariance and its gradient 3 R F^2.
fn flops(by_rows: bool, rows: usize, features: usize, n_iter: usize) -> f64 {
    let (r, f) = (rows as f64, features as f64);
    let pairs = n_iter / 2;
    let is_odd = n_iter % 2 == 1;
    if by_rows {
        // Two iterations take 6 (3 at the first P), the way to the next two 4 (3). What only the next
        // would need is left out at the end.
        let products = match (pairs, is_odd) {
            (0, _) => 0,
            (1, false) => 2,
            (1, true) => 3 + 2 + 1,
            (pairs, false) => 3 + 3 + 6 * (pairs - 1) + 4 * (pairs - 2) - 2,
            (pairs, true) => 3 + 3 + 6 * (pairs - 1) + 4 * (pairs - 2) + 3 + 1,
        };
        return 5.0 * products as f64 * r.powi(3) + 9.0 * r * r * f + 5.0 * r * f * f;
    }
    let products = (5 * pairs + 2 * usize::from(is_odd)).saturating_sub(2 + usize::from(!is_odd));
    3.0 * products as f64 * f.powi(3) + 3.0 * r * f * f
}

/// Whether D of this many centred rows is cheaper by way of their Gram matrix.
pub(crate) fn is_cheaper_by_rows(rows: usize, features: usize, n_iter: usize) -> bool {
    let by = |by_rows| flops(by_rows, rows, features, n_iter);
    // Small products are over before an adapter is full: what counts there is how many there are.
    let is_large = features > WHOLE_FEATURES;
    is_large && n_iter > 1 && n_iter <= MAX_ITER && by(true) < by(false)
}

impl Tensor<'_> {
    /// `centred.covariance(eps).newton_schulz(n_iter, ..)` for few rows.
    ///
    /// This: [groups, rows, features], columns with mean zero. Returns [groups, features, features].
    ///
    /// Fails if it does not have 3 dimensions or `n_iter` is not in 2 to 7.
    #[must_use]
    #[track_caller]
    pub fn newton_schulz_of_rows(self, eps: f32, n_iter: usize) -> Self {
        let (g, centred) = (self.graph(), self);
        let [groups, rows, features] = centred.dims();
        if !(2..=MAX_ITER).contains(&n_iter) {
            let message = format!("n_iter {n_iter} is not in 2 to {MAX_ITER}");
            g.fail(Error::graph("newton_schulz_of_rows", message));
            return self;
        }
        g.scope("newton_schulz", || {
            let one = [groups, 1, 1];
            let per_row = 1.0 / rows as f32;
            let product = MatMul {
                alpha: per_row,
                symmetric: rows > WHOLE_FEATURES,
                ..Transpose { a: false, b: true }.into()
            };
            let gram = centred.matmul_with(centred, None, product);
            // |Cov|_F
            let gram_norm_squared = gram.square().reduce_sum(one, 1.0);
            let trace = centred.square().reduce_sum(one, per_row);
            let of_eps = trace.affine(2.0 * eps, eps * eps * features as f32);
            let norm = (gram_norm_squared + of_eps).sqrt();
            let inverse_norm = norm.recip();
            // P = a I + K
            let shift = eps * inverse_norm;
            let scaled = gram * inverse_norm;
            let identity = identity_times(gram, 1.0);
            let p = Shifted {
                at: scaled + identity * shift,
                quotient: None,
                shift,
            };
            let z = iterate(p, identity, n_iter);
            // D = (p(a) I + X^T q(K) X / (R s)) / sqrt(s)
            let weighted = z.quotient.unwrap_or(identity).matmul(centred);
            let product = MatMul {
                alpha: per_row,
                symmetric: features > WHOLE_FEATURES,
                ..Transpose { a: true, b: false }.into()
            };
            let spanned = centred.matmul_with(weighted, None, product) * inverse_norm;
            (identity_times(spanned, 1.0) * z.shift + spanned) * norm.rsqrt()
        })
    }
}

/// A polynomial f of P = a I + K.
#[derive(Clone, Copy)]
struct Shifted<'g> {
    /// f(P), [groups, rows, rows].
    at: Tensor<'g>,
    /// (f(P) - f(a)) / K; `None` for the identity, which is that of P itself.
    quotient: Option<Tensor<'g>>,
    /// f(a), [groups, 1, 1].
    shift: Tensor<'g>,
}

/// Z after `n_iter` iterations, two at once as in `newton_schulz`. M = P Z^2.
fn iterate<'g>(p: Shifted<'g>, identity: Tensor<'g>, n_iter: usize) -> Shifted<'g> {
    let (mut m, mut z) = (p, None);
    for first in (0..n_iter).step_by(2) {
        let factor = if first + 1 < n_iter {
            let n = times(m, m);
            let [u, v] = [U, V].map(|[of_n, of_m, rest]| {
                combine(&[(n, of_n as f32), (m, of_m as f32)], rest as f32, identity)
            });
            times(u, v)
        } else {
            combine(&[(m, -0.5)], 1.5, identity)
        };
        z = Some(z.map_or(factor, |z| times(factor, z)));
        // Nodes that are not used are left out by the passes.
        m = times(m, times(factor, factor));
    }
    // There is at least one iteration, so there is a Z.
    z.unwrap_or(m)
}

/// f h. If the quotient of one is the identity, it is f's.
fn times<'g>(f: Shifted<'g>, h: Shifted<'g>) -> Shifted<'g> {
    let product = MatMul {
        symmetric: f.at.size(1) > WHOLE_FEATURES,
        ..MatMul::default()
    };
    let at = f.at.matmul_with(h.at, None, product);
    let h_quotient = match h.quotient {
        Some(quotient) => quotient * f.shift,
        None => identity_times(h.at, 1.0) * f.shift,
    };
    let quotient = match f.quotient {
        Some(quotient) => quotient.matmul_with(h.at, Some(h_quotient), product),
        None => h.at + h_quotient,
    };
    Shifted {
        at,
        quotient: Some(quotient),
        shift: f.shift * h.shift,
    }
}

/// The sum of `terms`, each times its factor, plus `constant`.
fn combine<'g>(terms: &[(Shifted<'g>, f32)], constant: f32, identity: Tensor<'g>) -> Shifted<'g> {
    let weighted = |part: fn(&Shifted<'g>) -> Option<Tensor<'g>>| {
        let values = terms
            .iter()
            .map(|(term, by)| *by * part(term).unwrap_or(identity));
        // There is at least one term.
        values.reduce(|sum, value| sum + value).unwrap_or(identity)
    };
    let at = weighted(|term| Some(term.at));
    let quotient = weighted(|term| term.quotient);
    let shift = weighted(|term| Some(term.shift));
    Shifted {
        at: at + constant * identity,
        quotient: Some(quotient),
        shift: shift + constant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Kind};
    use crate::ops::gradients::{Case, case, check, check_tiled, reference};
    use crate::passes::dead_code;

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        // By the Gram matrix of few rows, and of more than a tile has.
        for (shape, n_iter) in [
            ([2, 9, 23], 2),
            ([1, 9, 23], 3),
            ([1, 8, 40], 5),
            ([1, 70, 110], 5),
            ([1, 6, 31], 6),
            ([1, 6, 31], 7),
        ] {
            cases.push(
                case(
                    &format!("newton_schulz_of_rows {n_iter} {shape:?}"),
                    &[&shape],
                    move |x| x[0].newton_schulz_of_rows(0.05, n_iter),
                    move |x| reference::newton_schulz(&reference::covariance(&x[0], 0.05), n_iter),
                )
                .tolerance(3e-5),
            );
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("newton_schulz_of_rows", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("newton_schulz_of_rows", &cases());
    }

    /// The operations of the products that are left after the passes.
    fn counted(n_iter: usize, rows: usize, features: usize) -> f64 {
        let g = Graph::new();
        let x = g.input("x", [1, rows, features]);
        g.output("deconv", x.newton_schulz_of_rows(1e-5, n_iter));
        let g = dead_code(&g.checked().unwrap()).unwrap();
        let mut flops = 0.0;
        for node in g.nodes() {
            if let Kind::Op(op) = &node.kind
                && op.name() == "matmul"
            {
                let shapes: Vec<_> = node.inputs.iter().map(|&i| g.shape(i)).collect();
                // The identity is a product of nothing.
                if shapes[0].dims()[2] > 1 {
                    flops += op.cost(&shapes, &node.shape).flops as f64;
                }
            }
        }
        flops
    }

    #[test]
    fn the_forward_products_are_those_of_the_formula() {
        let (rows, features) = (100, 300);
        let (r, f) = (rows as f64, features as f64);
        // X X^T by half, q X, X^T (q X) by half.
        let around = r * r * f + 2.0 * r * r * f + r * f * f;
        for n_iter in 2..=7 {
            let backward = 4.0 / 5.0;
            let products = flops(true, rows, features, n_iter) - 9.0 * r * r * f - 5.0 * r * f * f;
            let expected = products * (1.0 - backward) + around;
            let got = counted(n_iter, rows, features);
            assert!(
                (got / expected - 1.0).abs() < 1e-9,
                "{n_iter}: {got} {expected}"
            );
        }
    }

    #[test]
    fn few_rows_go_by_the_gram_matrix() {
        assert!(is_cheaper_by_rows(288, 576, 5) && is_cheaper_by_rows(380, 576, 5));
        assert!(!is_cheaper_by_rows(420, 576, 5) && !is_cheaper_by_rows(2000, 576, 5));
        assert!(!is_cheaper_by_rows(100, 576, 8) && !is_cheaper_by_rows(100, 576, 1));
    }
}
