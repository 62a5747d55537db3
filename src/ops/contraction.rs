//! The one product behind matmul, convolution, its gradients and covariance.
//!
//! C[m, n] = alpha * sum over k of A[m; k] * B[k; n] + diag * (m == n) + bias, for each batch
//! element, with m, n and k each up to three loops deep and every address affine in them:
//! A at batch * a_batch + m . a_m + k . a_k, B at batch * b_batch + k . b_k + n . b_n,
//! C at batch * c_batch + m . c_m + n . c_n. A convolution over a padded image is of this form;
//! so its kernels are those of the matrix product.
//!
//! Bound: 2 * batch * m * n * k operations; half for a symmetric result.

use crate::graph::op::{Dispatch, Kernel, Lowered, Slot, Variants, fold_workgroups, word};
use crate::{Error, Result};

const SOURCE: &str = include_str!("../../shaders/contraction.wgsl");

/// Rows and columns of C that a workgroup computes.
const TILE: usize = 64;

/// Most bytes of partial sums of a product split over k.
const MAX_PARTS_BYTES: usize = 16 << 20;

/// What is added to every element of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    None,
    /// Element batch * m + row.
    PerRow,
    /// Element column.
    PerColumn,
}

/// Extents and strides in elements. Index triples are outermost first; `m_extents` and
/// `n_extents` are the two inner extents of m and n.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contraction {
    pub m: usize,
    pub n: usize,
    pub k: [usize; 3],
    pub batch: usize,
    pub a_m: [usize; 3],
    pub a_k: [usize; 3],
    pub a_batch: usize,
    pub b_k: [usize; 3],
    pub b_n: [usize; 3],
    pub b_batch: usize,
    pub c_m: [usize; 3],
    pub c_n: [usize; 3],
    pub c_batch: usize,
    pub m_extents: [usize; 2],
    pub n_extents: [usize; 2],
    pub alpha: f32,
    pub diag: f32,
    /// C[m, n] = C[n, m]: tiles above the diagonal are mirrored, not computed.
    pub symmetric: bool,
    pub bias: Bias,
}

impl Default for Contraction {
    fn default() -> Self {
        Self {
            m: 1,
            n: 1,
            k: [1; 3],
            batch: 1,
            a_m: [0; 3],
            a_k: [0; 3],
            a_batch: 0,
            b_k: [0; 3],
            b_n: [0; 3],
            b_batch: 0,
            c_m: [0; 3],
            c_n: [0; 3],
            c_batch: 0,
            m_extents: [1; 2],
            n_extents: [1; 2],
            alpha: 1.0,
            diag: 0.0,
            symmetric: false,
            bias: Bias::None,
        }
    }
}

impl Contraction {
    /// A plain product of matrices into a dense C: `a` the strides of A in m and k, `b` those of
    /// B in k and n.
    pub(super) fn matrix(m: usize, n: usize, k: usize, a: [usize; 2], b: [usize; 2]) -> Self {
        Self {
            m,
            n,
            k: [1, 1, k],
            a_m: [0, 0, a[0]],
            a_k: [0, 0, a[1]],
            b_k: [0, 0, b[0]],
            b_n: [0, 0, b[1]],
            c_m: [0, 0, n],
            c_n: [0, 0, 1],
            m_extents: [1, m],
            n_extents: [1, n],
            ..Self::default()
        }
    }

    /// The dispatches that compute `c` from `a` and `b`.
    ///
    /// # Errors
    /// [`Error::Limit`] if an address does not fit 32 bits.
    pub(super) fn lower(
        &self,
        variants: Variants,
        a: Slot,
        b: Slot,
        bias: Option<Slot>,
        c: Slot,
    ) -> Result<Lowered> {
        self.check_addresses()?;
        let (tiles_m, tiles_n) = (self.m.div_ceil(TILE), self.n.div_ceil(TILE));
        let tasks = tiles_m * tiles_n * self.batch;
        let plan = self.split(tasks, variants);
        let params = self.params(&plan, tiles_m, tiles_n)?;
        let entry = if variants.direct { "direct" } else { "tiled" };
        let mut constants = vec![];
        // Where k is three loops deep, `tiled` takes a flat k apart by constant divisors.
        if !variants.direct && self.k[0] * self.k[1] > 1 {
            constants.push(("K12", word(self.k[1] * self.k[2])?));
            constants.push(("K2", word(self.k[2])?));
        }
        let bias_mode = match self.bias {
            Bias::None => 0,
            Bias::PerRow => 1,
            Bias::PerColumn => 2,
        };
        constants.push(("BIAS", bias_mode));
        let bias = bias.unwrap_or(a);
        let first = Dispatch {
            kernel: kernel(entry, constants),
            params: params.clone(),
            bindings: vec![
                a,
                if plan.splits > 1 { Slot::Scratch(0) } else { c },
                bias,
                b,
            ],
            workgroups: fold_workgroups(tasks * plan.splits),
        };
        if plan.splits == 1 {
            return Ok(first.into());
        }
        let len = self.batch * self.m * self.n;
        let second = Dispatch {
            kernel: kernel("add_parts", vec![("BIAS", bias_mode)]),
            params,
            bindings: vec![Slot::Scratch(0), c, bias],
            workgroups: fold_workgroups(len.div_ceil(64)),
        };
        Ok(Lowered {
            dispatches: vec![first, second],
            scratch: vec![plan.splits * len],
        })
    }

    /// How k is divided over workgroups where there are too few tiles to fill the adapter.
    fn split(&self, tasks: usize, variants: Variants) -> Plan {
        let wanted = if variants.direct { 8 } else { 256 };
        let len = self.batch * self.m * self.n;
        let k_total: usize = self.k.iter().product();
        let most = (k_total / 128).min(MAX_PARTS_BYTES / (4 * len).max(1));
        let splits = (wanted / tasks.max(1)).min(most).max(1);
        let whole = Plan {
            k: self.k,
            a_k: self.a_k,
            b_k: self.b_k,
            k0_per_split: self.k[0],
            splits: 1,
        };
        if splits == 1 {
            return whole;
        }
        if self.k[0] * self.k[1] == 1 {
            let k2 = self.k[2].div_ceil(splits);
            let splits = self.k[2].div_ceil(k2);
            let outer = |k: [usize; 3]| [k2 * k[2], 0, k[2]];
            return Plan {
                k: [splits, 1, k2],
                a_k: outer(self.a_k),
                b_k: outer(self.b_k),
                k0_per_split: 1,
                splits,
            };
        }
        let k0_per_split = self.k[0].div_ceil(splits.min(self.k[0]));
        Plan {
            k0_per_split,
            splits: self.k[0].div_ceil(k0_per_split),
            ..whole
        }
    }

    /// Words of the shader's `Params`.
    fn params(&self, plan: &Plan, tiles_m: usize, tiles_n: usize) -> Result<Vec<u32>> {
        let mut words = Vec::with_capacity(40);
        let mut push = |values: &[usize]| {
            for &value in values {
                words.push(word(value)?);
            }
            Ok::<(), Error>(())
        };
        push(&[self.m, self.n, self.batch, plan.splits])?;
        push(&plan.k)?;
        push(&[plan.k0_per_split])?;
        push(&plan.a_k)?;
        push(&[self.a_batch])?;
        push(&plan.b_k)?;
        push(&[self.b_batch])?;
        push(&self.a_m)?;
        push(&[self.c_batch])?;
        push(&self.b_n)?;
        push(&[self.k.iter().product()])?;
        push(&self.c_m)?;
        push(&[self.alpha.to_bits() as usize])?;
        push(&self.c_n)?;
        push(&[self.diag.to_bits() as usize])?;
        push(&self.m_extents)?;
        push(&self.n_extents)?;
        push(&[tiles_m, tiles_n, usize::from(self.symmetric), 0])?;
        Ok(words)
    }

    /// No address may wrap around 32 bits.
    fn check_addresses(&self) -> Result<()> {
        let reach = |len: usize, extents: [usize; 2], strides: [usize; 3]| {
            let outer = len.div_ceil(extents[0] * extents[1]);
            let last = |extent: usize, stride: usize| extent.saturating_sub(1) * stride;
            last(outer, strides[0]) + last(extents[0], strides[1]) + last(extents[1], strides[2])
        };
        let k = |strides: [usize; 3]| {
            let k_total: usize = self.k.iter().product();
            reach(k_total, [self.k[1], self.k[2]], strides)
        };
        let batches = self.batch.saturating_sub(1);
        let a = batches * self.a_batch + reach(self.m, self.m_extents, self.a_m) + k(self.a_k);
        let b = batches * self.b_batch + reach(self.n, self.n_extents, self.b_n) + k(self.b_k);
        let c = batches * self.c_batch
            + reach(self.m, self.m_extents, self.c_m)
            + reach(self.n, self.n_extents, self.c_n);
        for last in [a, b, c] {
            word(last)?;
        }
        Ok(())
    }
}

/// A division of k.
struct Plan {
    k: [usize; 3],
    a_k: [usize; 3],
    b_k: [usize; 3],
    k0_per_split: usize,
    splits: usize,
}

fn kernel(entry: &'static str, constants: Vec<(&'static str, u32)>) -> Kernel {
    Kernel {
        name: "contraction",
        source: SOURCE.into(),
        entry,
        constants,
    }
}
