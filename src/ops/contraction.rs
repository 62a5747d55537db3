//! The one product behind matmul, convolution, its gradients and covariance.
//!
//! `C[m, n] = alpha * sum over k of A[m; k] * B[k; n] + diag * (m == n) + bias`, for each batch
//! element, with m, n and k each up to three loops deep and every address affine in them: A at
//! `a_from + batch * a_batch + m . a_m + k . a_k`, B at `b_from + batch * b_batch + k . b_k + n . b_n`, C at
//! `c_from + batch * c_batch + m . c_m + n . c_n`. A convolution over a padded image is of this form; so
//! its kernels are those of the matrix product.
//!
//! Bound: 2 * batch * m * n * k operations; half for a symmetric result.

use super::contraction_tiled::{self, Loops};
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Params, Slot, Variants, word};
use crate::graph::tiles::{Class, Tile};
use crate::{Error, Result};

mod subgroup;

/// Rows and columns of tiles.
type Tiles = [usize; 2];

const SOURCE: &str = include_str!("../../shaders/contraction.wgsl");
const SUBGROUP_SOURCE: &str = include_str!("../../shaders/contraction_subgroup.wgsl");

/// Least length of a part of k.
const MIN_PART: usize = 128;

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
    /// Element (batch * m + row) * n + column.
    Matrix,
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
    pub a_from: usize,
    pub b_from: usize,
    pub c_from: usize,
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
            a_from: 0,
            b_from: 0,
            c_from: 0,
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
        let kernel = Variant::of(variants, self.m, self.n, self.k.iter().product());
        let tiles = [
            self.m.div_ceil(kernel.tile[0]),
            self.n.div_ceil(kernel.tile[1]),
        ];
        let tasks = tiles[0] * tiles[1] * self.batch;
        let is_subgroup = kernel.entry == "direct_subgroup";
        if is_subgroup && subgroup::is_better_turned(self, tiles) {
            return self.turned().lower(variants, b, a, bias, c);
        }
        let split = is_subgroup.then(|| subgroup::split(self, tiles)).flatten();
        let split = split.unwrap_or_else(|| self.split(tasks, &kernel));
        let bias = bias.unwrap_or(a);
        let arranged = |lowered| match is_subgroup {
            true => subgroup::arrange(self, tiles, split, lowered),
            false => Ok(lowered),
        };
        if split.parts == 1 {
            let product = self.product(&kernel, tiles, split, [a, c, bias, b], 0)?;
            return arranged(product.into());
        }
        // The parts, [parts, batch, m, n], are dense and bare; the second dispatch does the rest.
        let len = self.batch * self.m * self.n;
        let outer = |extents: [usize; 2], stride: usize| {
            let inner = extents[1] * stride;
            [extents[0] * inner, inner, stride]
        };
        let bare = Self {
            c_m: outer(self.m_extents, self.n),
            c_n: outer(self.n_extents, 1),
            c_batch: self.m * self.n,
            c_from: 0,
            alpha: 1.0,
            diag: 0.0,
            bias: Bias::None,
            ..*self
        };
        let parts = Slot::Scratch(0);
        let first = bare.product(&kernel, tiles, split, [a, parts, a, b], len)?;
        let second = Dispatch {
            kernel: Kernel {
                name: "contraction",
                source: SOURCE.into(),
                entry: "add_parts",
                constants: vec![("BIAS", self.bias.mode())],
            },
            params: self.params(tiles, split, 0)?,
            bindings: vec![parts, c, bias],
            grid: Grid::Invocations(len),
        };
        arranged(Lowered {
            dispatches: vec![first, second],
            scratch: vec![split.parts * len],
        })
    }

    /// The same product with A and B exchanged: the transpose of C is that of B times that of A. Not with a bias, which is
    /// not exchanged.
    fn turned(&self) -> Self {
        Self {
            m: self.n,
            n: self.m,
            a_m: self.b_n,
            a_k: self.b_k,
            a_batch: self.b_batch,
            b_k: self.a_k,
            b_n: self.a_m,
            b_batch: self.a_batch,
            a_from: self.b_from,
            b_from: self.a_from,
            c_m: self.c_n,
            c_n: self.c_m,
            m_extents: self.n_extents,
            n_extents: self.m_extents,
            ..*self
        }
    }

    fn product(
        &self,
        variant: &Variant,
        tiles: [usize; 2],
        split: SplitOfK,
        bindings: [Slot; 4],
        c_split: usize,
    ) -> Result<Dispatch> {
        let (mut like, mut constants) = (*self, vec![("BIAS", self.bias.mode())]);
        if let Text::Tile(tile) = &variant.text {
            constants.extend(like.specialise(tile, split)?);
        }
        Ok(Dispatch {
            kernel: Kernel {
                name: variant.name,
                source: match &variant.text {
                    Text::File(source) => (*source).into(),
                    Text::Tile(tile) => contraction_tiled::source(tile).into(),
                },
                entry: variant.entry,
                constants,
            },
            params: like.params(tiles, split, c_split)?,
            bindings: bindings.to_vec(),
            grid: Grid::Workgroups(tiles[0] * tiles[1] * self.batch * split.parts),
        })
    }

    /// The constants of `shaders/contraction_tiled.wgsl` for this product; its strides become those of the
    /// loops that are left.
    fn specialise(&mut self, tile: &Tile, split: SplitOfK) -> Result<Vec<(&'static str, u32)>> {
        let along = |len: usize, inner: [usize; 2]| {
            let block = inner[0] * inner[1];
            [len.div_ceil(block), inner[0], inner[1]]
        };
        let (m, n) = (along(self.m, self.m_extents), along(self.n, self.n_extents));
        let mut constants = Vec::new();
        let mut merge = |names: [&'static str; 2], extents, strides: &mut [usize; 3]| {
            let loops = Loops::merged(extents, *strides);
            *strides = loops.strides;
            for (name, extent) in names.into_iter().zip([loops.block, loops.row]) {
                if let Some(extent) = extent {
                    constants.push((name, word(extent)?));
                }
            }
            Ok::<_, Error>(())
        };
        merge(["A_M12", "A_M2"], m, &mut self.a_m)?;
        merge(["A_K12", "A_K2"], self.k, &mut self.a_k)?;
        merge(["B_K12", "B_K2"], self.k, &mut self.b_k)?;
        merge(["B_N12", "B_N2"], n, &mut self.b_n)?;
        merge(["C_M12", "C_M2"], m, &mut self.c_m)?;
        merge(["C_N12", "C_N2"], n, &mut self.c_n)?;
        let along_k = |k: [usize; 3], other: [usize; 3]| u32::from(k[2] == 1 && other[2] != 1);
        let k: usize = self.k.iter().product();
        let even = |len: usize| len.is_multiple_of(tile.k as usize);
        constants.extend([
            ("A_ALONG_K", along_k(self.a_k, self.a_m)),
            ("B_ALONG_K", along_k(self.b_k, self.b_n)),
            ("K_EVEN", u32::from(even(k) && even(split.k_per_split))),
            ("SYMMETRIC", u32::from(self.symmetric)),
        ]);
        Ok(constants)
    }

    /// How k is divided over workgroups where there are too few tiles to fill the adapter.
    fn split(&self, tasks: usize, variant: &Variant) -> SplitOfK {
        let len = self.batch * self.m * self.n;
        let k = self.k_len();
        let most = (k / MIN_PART).min(MAX_PARTS_BYTES / (4 * len).max(1));
        let parts = (variant.wanted / tasks.max(1)).min(most).max(1);
        SplitOfK::of(k, parts, variant.depth)
    }

    fn k_len(&self) -> usize {
        self.k.iter().product()
    }

    /// The shader's `Params`.
    fn params(&self, tiles: [usize; 2], split: SplitOfK, c_split: usize) -> Result<Params> {
        let mut params = Params::new()
            .with("alpha", self.alpha)?
            .with("diag", self.diag)?
            .with("m_extents", self.m_extents)?
            .with("n_extents", self.n_extents)?;
        for (name, value) in [
            ("m", self.m),
            ("n", self.n),
            ("batch", self.batch),
            ("splits", split.parts),
            ("k_per_split", split.k_per_split),
            ("a_batch", self.a_batch),
            ("b_batch", self.b_batch),
            ("c_batch", self.c_batch),
            ("c_split", c_split),
            ("a_from", self.a_from),
            ("b_from", self.b_from),
            ("c_from", self.c_from),
            ("tiles_m", tiles[0]),
            ("tiles_n", tiles[1]),
            ("symmetric", usize::from(self.symmetric)),
            // For contraction_subgroup.wgsl, which sets them itself.
            ("first_tile_n", 0),
            ("first_split", 0),
            ("packed_from", 0),
            ("packed_quads", 0),
        ] {
            params.set(name, value)?;
        }
        for (name, value) in [
            ("k", self.k),
            ("a_k", self.a_k),
            ("b_k", self.b_k),
            ("a_m", self.a_m),
            ("b_n", self.b_n),
            ("c_m", self.c_m),
            ("c_n", self.c_n),
        ] {
            params.set(name, value)?;
        }
        Ok(params)
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
        let a = self.a_from
            + batches * self.a_batch
            + reach(self.m, self.m_extents, self.a_m)
            + k(self.a_k);
        let b = self.b_from
            + batches * self.b_batch
            + reach(self.n, self.n_extents, self.b_n)
            + k(self.b_k);
        let c = self.c_from
            + batches * self.c_batch
            + reach(self.m, self.m_extents, self.c_m)
            + reach(self.n, self.n_extents, self.c_n);
        for last in [a, b, c] {
            word(last)?;
        }
        Ok(())
    }
}

impl Bias {
    /// The shader's `BIAS`.
    fn mode(self) -> u32 {
        match self {
            Self::None => 0,
            Self::PerRow => 1,
            Self::PerColumn => 2,
            Self::Matrix => 3,
        }
    }
}

/// Makes the result of a lowered contraction max(x, 0). `add_parts` finishes it where k is split, else every dispatch
/// of a product finishes its part of the result.
pub(crate) fn finish_with_relu(lowered: &mut Lowered) {
    let is_split = lowered
        .dispatches
        .iter()
        .any(|d| d.kernel.entry == "add_parts");
    for dispatch in &mut lowered.dispatches {
        let kernel = &mut dispatch.kernel;
        let finishes = match is_split {
            true => kernel.entry == "add_parts",
            false => kernel.constants.iter().any(|(name, _)| *name == "BIAS"),
        };
        if finishes {
            kernel.constants.push(("RELU", 1));
        }
    }
}

/// A division of the flattened k.
#[derive(Clone, Copy)]
struct SplitOfK {
    k_per_split: usize,
    parts: usize,
}

impl SplitOfK {
    /// About `parts` parts, multiples of `depth`: so many numbers along k a kernel reads at once.
    fn of(k: usize, parts: usize, depth: usize) -> Self {
        let k_per_split = k.div_ceil(parts).max(1).next_multiple_of(depth);
        Self {
            k_per_split,
            parts: k.div_ceil(k_per_split).max(1),
        }
    }
}

/// A kernel for an adapter.
struct Variant {
    name: &'static str,
    entry: &'static str,
    /// Rows and columns of C that a workgroup computes.
    tile: [usize; 2],
    /// Parts of k are multiples of this.
    depth: usize,
    /// Workgroups that fill the adapter.
    wanted: usize,
    text: Text,
}

/// Where a kernel's WGSL is from.
enum Text {
    File(&'static str),
    /// Written for this tile.
    Tile(Tile),
}

impl Variant {
    /// For a product of this size.
    fn of(variants: Variants, m: usize, n: usize, k: usize) -> Self {
        match variants {
            // On 2 cores 16 workgroups do; with 32, 128x784x128 takes 1.4 times and with 64 1.6 times as
            // long, for a twentieth gained in balance elsewhere at most.
            Variants::Subgroup => Self {
                name: "contraction_subgroup",
                entry: "direct_subgroup",
                tile: [32, 32],
                depth: subgroup::DEPTH,
                wanted: 16,
                text: Text::File(SUBGROUP_SOURCE),
            },
            Variants::Direct => Self {
                name: "contraction",
                entry: "direct",
                tile: [16, 64],
                depth: 1,
                wanted: 16,
                text: Text::File(SOURCE),
            },
            Variants::Tiled(tiles) => {
                let tile = tiles.of(Class::of(m, n, k));
                Self {
                    name: "contraction_tiled",
                    entry: tile.entry,
                    tile: [tile.m as usize, tile.n as usize],
                    depth: tile.k as usize,
                    // 65 536 invocations; no more workgroups than there are in 16 waves of 64 cores.
                    wanted: (65_536 / tile.invocations() as usize).min(1024),
                    text: Text::Tile(tile),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::fold_workgroups;
    use crate::graph::tiles::Tiles;

    fn subgroup() -> Variants {
        Variants::Subgroup
    }

    fn tiled() -> Variants {
        Variants::Tiled(Tiles::default())
    }

    fn lower(contraction: &Contraction, variants: Variants) -> Result<Lowered> {
        contraction.lower(variants, Slot::Input(0), Slot::Input(1), None, Slot::Output)
    }

    fn number(dispatch: &Dispatch, name: &str) -> usize {
        let value = dispatch.params.iter().find(|(other, _)| *other == name);
        value.unwrap().1[0] as usize
    }

    /// The address of flat index `i`, as the shaders take it apart.
    fn address(i: usize, extents: [usize; 2], strides: [usize; 3]) -> usize {
        let upper = i / extents[1];
        (upper / extents[0]) * strides[0]
            + (upper % extents[0]) * strides[1]
            + (i % extents[1]) * strides[2]
    }

    #[test]
    fn a_strided_dilated_convolution_is_a_contraction() {
        let (images, channels, outputs, [h, w]) = (2, 3, 4, [9, 11]);
        let (taps, stride, dilation) = ([3, 2], 2, 2);
        let out = [0, 1].map(|i| ([h, w][i] - dilation * (taps[i] - 1) - 1) / stride + 1);
        let (plane, positions) = (h * w, out[0] * out[1]);
        let k = channels * taps[0] * taps[1];
        let contraction = Contraction {
            m: outputs,
            n: images * positions,
            k: [channels, taps[0], taps[1]],
            a_m: [0, 0, k],
            a_k: [taps[0] * taps[1], taps[1], 1],
            b_k: [plane, dilation * w, dilation],
            b_n: [channels * plane, stride * w, stride],
            c_m: [0, 0, positions],
            c_n: [outputs * positions, out[1], 1],
            m_extents: [1, outputs],
            n_extents: out,
            ..Contraction::default()
        };
        assert!(lower(&contraction, subgroup()).is_ok());
        let value = |i: usize, salt: usize| ((i * 37 + salt) % 19) as f64 - 9.0;
        let image =
            |n: usize, c: usize, y: usize, x: usize| value(((n * channels + c) * h + y) * w + x, 5);
        for n in 0..images {
            for o in 0..outputs {
                for y in 0..out[0] {
                    for x in 0..out[1] {
                        let mut expected = 0.0;
                        for c in 0..channels {
                            for ky in 0..taps[0] {
                                for kx in 0..taps[1] {
                                    let weight = ((o * channels + c) * taps[0] + ky) * taps[1] + kx;
                                    let at =
                                        [y * stride + ky * dilation, x * stride + kx * dilation];
                                    expected += value(weight, 0) * image(n, c, at[0], at[1]);
                                }
                            }
                        }
                        let column = n * positions + y * out[1] + x;
                        let sum: f64 = (0..k)
                            .map(|k| {
                                let inner = [taps[0], taps[1]];
                                let s = &contraction;
                                value(address(o, s.m_extents, s.a_m) + address(k, inner, s.a_k), 0)
                                    * value(
                                        address(column, s.n_extents, s.b_n)
                                            + address(k, inner, s.b_k),
                                        5,
                                    )
                            })
                            .sum();
                        assert_eq!(sum, expected);
                        let c = address(o, contraction.m_extents, contraction.c_m)
                            + address(column, contraction.n_extents, contraction.c_n);
                        assert_eq!(c, ((n * outputs + o) * out[0] + y) * out[1] + x);
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_product_is_split_within_bounds() {
        let gram = Contraction::matrix(27, 27, 100_000, [1, 27], [27, 1]);
        for variants in [subgroup(), tiled()] {
            let lowered = lower(&gram, variants).unwrap();
            let [first, second] = &lowered.dispatches[..] else {
                panic!("not split");
            };
            let (parts, each) = (number(first, "splits"), number(first, "k_per_split"));
            assert!(parts > 1 && (parts - 1) * each < 100_000 && parts * each >= 100_000);
            assert!(each >= MIN_PART);
            assert_eq!(lowered.scratch, [parts * 27 * 27]);
            assert!(lowered.scratch[0] * 4 <= MAX_PARTS_BYTES);
            assert_eq!(first.bindings[1], Slot::Scratch(0));
            assert_eq!(second.bindings[0], Slot::Scratch(0));
        }
        // Four parts of a MiB numbers are the bound.
        let large = Contraction::matrix(1024, 1024, 1 << 20, [1, 1024], [1024, 1]);
        let variant = Variant {
            wanted: 1 << 20,
            ..Variant::of(Variants::Direct, 1024, 1024, 1 << 20)
        };
        assert_eq!(large.split(1, &variant).parts, 4);
        let square = Contraction::matrix(512, 512, 512, [512, 1], [512, 1]);
        let lowered = lower(&square, subgroup()).unwrap();
        let names = lowered.dispatches.iter().map(|d| d.kernel.entry);
        assert!(!names.collect::<Vec<_>>().contains(&"add_parts"));
    }

    #[test]
    fn grids_are_folded_and_addresses_limited() {
        let wide = Contraction::matrix(1, 40_000_000, 1, [1, 1], [1, 1]);
        let lowered = lower(&wide, Variants::Direct).unwrap();
        assert_eq!(
            lowered.dispatches[0].grid,
            Grid::Workgroups(40_000_000 / 64)
        );
        let [x, y, z] = fold_workgroups(40_000_000 / 64);
        assert!(x <= 65_535 && y > 1 && z == 1 && x * y >= 40_000_000 / 64);
        let huge = Contraction::matrix(70_000, 70_000, 1, [1, 1], [70_000, 1]);
        assert!(matches!(lower(&huge, tiled()), Err(Error::Limit(_))));
        // Every stride counts, and where each tensor begins.
        let small = Contraction {
            batch: 2,
            ..Contraction::matrix(2, 2, 2, [2, 1], [2, 1])
        };
        small.check_addresses().unwrap();
        let far = 1 << 32;
        let changes: [fn(&mut Contraction, usize); 12] = [
            |c, far| c.a_from = far,
            |c, far| c.b_from = far,
            |c, far| c.c_from = far,
            |c, far| c.a_batch = far,
            |c, far| c.b_batch = far,
            |c, far| c.c_batch = far,
            |c, far| c.a_m[2] = far,
            |c, far| c.a_k[2] = far,
            |c, far| c.b_k[2] = far,
            |c, far| c.b_n[2] = far,
            |c, far| c.c_m[2] = far,
            |c, far| c.c_n[2] = far,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut other = small;
            change(&mut other, far);
            assert!(other.check_addresses().is_err(), "change {i}");
        }
    }
}
