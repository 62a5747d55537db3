//! The deconvolution of an image as the figures show it, as nodes of a graph.
//!
//! Patches are those of every pixel, see [`Border`] for what is around the image. A deconvolved channel is the column of
//! (patches - mean) D that belongs to the channel's centre tap, which is a convolution with that
//! column of D: X D is never formed.
//!
//! Statistics are the layer's (centred, covariance, `newton_schulz`), but in the coordinates of [`Axes::basis`]: of pixels, as the
//! layer has them, float32 takes the largest correlation of a photograph's 7x7 patches 3 to 39 % off (docs/architecture.md).

use super::axes::{Axes, cosines};
use crate::graph::{Graph, Init, Role, Tensor};
use crate::nn::resolve_block;
use crate::ops::{Conv2dGeometry, CovGrad, MatMul, Padding2d, Transpose};
use crate::shape::Shape;
use crate::{Error, Result};

/// Variances of pixels are below 1: with such an eps D has long been a multiple of the identity.
const MAX_EPS: f32 = 1e6;
/// Largest k of which cosines along rows and columns are taken by one product: it has k times as many operations as
/// one after the other, but on the software adapter takes nine tenths of the time for 7.
const LARGEST_AT_ONCE: usize = 7;
/// Largest [`WhitenOptions::n_iter`]: by then nothing changes any more.
const MAX_N_ITER: usize = 100;
/// Largest [`WhitenOptions::sampling_stride`].
const MAX_SAMPLING_STRIDE: usize = 64;
/// Most values of a strip of patches, so that it fits a binding of 128 MiB.
const STRIP_LEN: usize = 16 << 20;

/// How D is computed of patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WhitenOptions {
    /// Added to the diagonal of the covariance.
    pub eps: f32,
    /// Denman–Beavers iterations.
    pub n_iter: usize,
    /// The covariance is that of every n-th patch in both directions; 1: of all.
    pub sampling_stride: usize,
}

impl Default for WhitenOptions {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            n_iter: 15,
            sampling_stride: 1,
        }
    }
}

impl WhitenOptions {
    /// Refuses what cannot be computed.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    fn check(&self) -> Result<()> {
        let Self {
            eps,
            n_iter,
            sampling_stride,
        } = *self;
        if !(1..=MAX_N_ITER).contains(&n_iter) {
            return Err(Error::Config(format!(
                "`n_iter` {n_iter} is not from 1 to {MAX_N_ITER}"
            )));
        }
        if !(eps > 0.0 && eps <= MAX_EPS) {
            let message = format!("`eps` {eps} is not a positive number up to {MAX_EPS}");
            return Err(Error::Config(message));
        }
        if !(1..=MAX_SAMPLING_STRIDE).contains(&sampling_stride) {
            return Err(Error::Config(format!(
                "`sampling_stride` {sampling_stride} is not from 1 to {MAX_SAMPLING_STRIDE}"
            )));
        }
        Ok(())
    }

    /// For captions.
    pub(super) fn describe(&self) -> String {
        let of = match self.sampling_stride {
            1 => String::new(),
            n => format!(", counting one patch in {n} along rows and columns"),
        };
        format!("eps {:e}, n_iter {}{of}", self.eps, self.n_iter)
    }
}

/// What patches at the border of an image see beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Border {
    /// Zeros, as the layer's padding has it.
    Zeros,
    /// The outermost pixels once more. Beside what is left of the edges in a blurred image, the step to zeros
    /// would be all that there is to see.
    Repeated,
}

/// How values are made patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PatchForm {
    /// k, odd.
    pub(super) kernel_size: usize,
    /// Channels of one covariance.
    pub(super) block: usize,
    /// Coordinates of colours.
    pub(super) axes: Axes,
}

/// The patches of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patches<'g> {
    /// [1, C, H + k - 1, W + k - 1].
    padded: Tensor<'g>,
    /// Its block is a divisor of C.
    pub(super) layout: PatchForm,
}

/// Of patches in blocks, F = block * k * k, in the coordinates of [`Axes::basis`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments<'g> {
    /// [1, F].
    pub(super) mean: Tensor<'g>,
    /// [F, F], without eps.
    pub(super) cov: Tensor<'g>,
}

/// Of patches in blocks, F = block * k * k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whitening<'g> {
    /// [1, F].
    pub(super) mean: Tensor<'g>,
    /// [F, F], without eps.
    pub(super) cov: Tensor<'g>,
    /// [F, F].
    pub(super) deconv: Tensor<'g>,
    /// D cov D.
    pub(super) cov_after: Tensor<'g>,
    /// [F, F].
    pub(super) identity: Tensor<'g>,
}

impl<'g> Whitening<'g> {
    /// The same patches under another mean [1, F] and D [F, F].
    pub(super) fn with_deconv(&self, mean: Tensor<'g>, deconv: Tensor<'g>) -> Self {
        Self {
            mean,
            deconv,
            cov_after: deconv.matmul(self.cov).matmul_t(deconv),
            ..*self
        }
    }
}

/// Refuses what cannot be computed.
///
/// # Errors
/// [`Error::Config`] naming the option.
pub(super) fn check_options(
    kernel_size: usize,
    block: usize,
    statistics: &WhitenOptions,
) -> Result<()> {
    let fail = |message: String| Err(Error::Config(message));
    if kernel_size.is_multiple_of(2) || kernel_size > 15 {
        return fail(format!(
            "`kernel_size` {kernel_size} must be odd (a patch has a centre) and at most 15"
        ));
    }
    if block == 0 {
        return fail("`block` 0 must be at least 1".into());
    }
    statistics.check()
}

/// The patches of `x` [1, C, H, W] around every pixel.
pub(super) fn patches(x: Tensor<'_>, layout: PatchForm, border: Border) -> Patches<'_> {
    let pad = layout.kernel_size / 2;
    Patches {
        padded: match border {
            Border::Repeated => repeated(x, pad),
            Border::Zeros => zeros_around(x, [pad; 2]),
        },
        layout: PatchForm {
            block: resolve_block(layout.block, x.size(1)),
            ..layout
        },
    }
}

impl PatchForm {
    /// Values of a patch of one block.
    pub(super) fn features(&self) -> usize {
        self.block * self.kernel_size * self.kernel_size
    }

    /// [`Axes::basis`], [F, F].
    fn basis<'g>(&self, g: &'g Graph) -> Tensor<'g> {
        let basis = self.axes.basis(self.kernel_size, self.block);
        known(g, "basis", [self.features(); 2], basis)
    }
}

/// `x` [N, C, H, W] with so many rows and columns of zeros on every side.
pub(super) fn zeros_around(x: Tensor<'_>, pad: [usize; 2]) -> Tensor<'_> {
    let [_, _, h, w] = x.dims();
    x.pad2d(Padding2d {
        before: pad.map(|n| n as i64),
        size: [h + 2 * pad[0], w + 2 * pad[1]],
        spacing: [1, 1],
    })
}

/// `x` [1, C, H, W] with its first and last row and column `pad` times more.
fn repeated(x: Tensor<'_>, pad: usize) -> Tensor<'_> {
    if pad == 0 {
        return x;
    }
    [2, 3].into_iter().fold(x, |x, dim| {
        let first = x.slice(dim, 0, 1, 1);
        let last = x.slice(dim, x.size(dim) - 1, 1, 1);
        let parts = [vec![first; pad], vec![x], vec![last; pad]];
        x.graph().concat(&parts.concat(), dim)
    })
}

/// Rows of pixels of a strip of an image of `c` channels that is `w` wide, taken by every `stride`-th patch of k x k: whole
/// strides, as many as keep what is computed of a strip within [`STRIP_LEN`], or one.
fn rows_per_strip(c: usize, w: usize, k: usize, stride: usize) -> usize {
    let mut rows_per_strip = STRIP_LEN / (w.div_ceil(stride) * c * k * k) * stride;
    if k > LARGEST_AT_ONCE {
        // Cosines along rows are taken of every pixel.
        let rows = (STRIP_LEN / (w * c * k)).saturating_sub(k - 1);
        rows_per_strip = rows_per_strip.min(rows / stride * stride);
    }
    rows_per_strip.max(stride)
}

/// Each `block` channels of `x` [1, C, H, W] as an image of their own.
fn in_blocks(x: Tensor<'_>, block: usize) -> Tensor<'_> {
    let [_, c, h, w] = x.dims();
    x.reshape([c / block, block, h, w])
}

/// A state of numbers that are known beforehand.
pub(super) fn known<'g>(
    g: &'g Graph,
    name: &str,
    shape: impl Into<Shape>,
    values: impl IntoIterator<Item = impl Into<f64>>,
) -> Tensor<'g> {
    let values: Vec<f32> = values.into_iter().map(|v| v.into() as f32).collect();
    g.state(name, shape, Role::Scratch, Init::Values(values.into()))
}

impl<'g> Patches<'g> {
    /// Channels, rows and columns of the image.
    fn image_size(&self) -> [usize; 3] {
        let [_, c, h, w] = self.padded.dims();
        // No fewer than one, were it of a graph that has failed.
        let around = self.layout.kernel_size - 1;
        let [h, w] = [h, w].map(|n| n.saturating_sub(around).max(1));
        [c, h, w]
    }

    /// How many patches of one block every `stride`-th of them in both directions are.
    pub(super) fn count(&self, stride: usize) -> usize {
        let [c, h, w] = self.image_size();
        c / self.layout.block * h.div_ceil(stride) * w.div_ceil(stride)
    }

    /// Mean and covariance of every `stride`-th of them in both directions. In two passes, as the layer takes them: a large
    /// mean would cost digits. Each channel is centred first; what zeros around the image leave of the means of its taps
    /// is small. Strip by strip: all patches of a photograph at once would not fit a binding.
    pub(super) fn moments(&self, stride: usize) -> Moments<'g> {
        let (k, block, features) = (
            self.layout.kernel_size,
            self.layout.block,
            self.layout.features(),
        );
        let blocks = in_blocks(self.padded, block);
        let centre = blocks.mean_to([1, block, 1, 1]);
        let centred = (blocks - centre).reshape(self.padded.shape());
        let [c, h, w] = self.image_size();
        let blocks = c / block;
        let sampled = |n: usize| n.div_ceil(stride);
        let rows_per_strip = rows_per_strip(c, w, k, stride);
        let strip = |first: usize| {
            let rows = rows_per_strip.min(h - first);
            let pixels = sampled(rows) * sampled(w);
            let share = (pixels as f64 / (sampled(h) * sampled(w) * blocks) as f64) as f32;
            let weight = share / pixels as f32;
            let gram = MatMul {
                alpha: weight,
                symmetric: true,
                ..MatMul::from(Transpose { a: false, b: true })
            };
            let strip = centred.slice(2, first, 1, rows + k - 1);
            let planes = self.coordinates(strip, stride);
            let planes = planes.reshape([blocks, features, pixels]);
            let mean = planes.reduce_sum([1, features, 1], weight);
            let moment = planes.matmul_with(planes, None, gram);
            (mean, moment.sum_to([1, features, features]))
        };
        let others = (rows_per_strip..h).step_by(rows_per_strip);
        let (mean, moment) = others.map(strip).fold(strip(0), |sum, strip| {
            let ((mean, moment), (strip_mean, strip_moment)) = (sum, strip);
            (mean + strip_mean, moment + strip_moment)
        });
        let left = mean.reshape([1, features]);
        let minus_left = MatMul {
            alpha: -1.0,
            symmetric: true,
            ..MatMul::from(Transpose { a: true, b: false })
        };
        let moment = moment.reshape([features, features]);
        let centre = centre.reshape([block, 1]).broadcast_to([block, k * k]);
        Moments {
            mean: left
                + centre
                    .reshape([1, features])
                    .matmul(self.layout.basis(moment.graph())),
            cov: left.matmul_with(left, Some(moment), minus_left),
        }
    }

    /// Every `stride`-th patch of a strip of rows [1, C, rows + k - 1, W + k - 1] in the coordinates of [`Axes::basis`]:
    /// a plane for each, of rows / stride x W / stride each.
    fn coordinates(&self, strip: Tensor<'g>, stride: usize) -> Tensor<'g> {
        let g = strip.graph();
        let PatchForm {
            kernel_size: k,
            block,
            axes,
        } = self.layout;
        let [_, c, h, w] = strip.dims();
        let every = Conv2dGeometry::default();
        let sampling = Conv2dGeometry { stride, ..every };
        if block == 3 && k <= 3 {
            // Few enough values for one product that takes colours and cosines at once.
            let basis = axes.basis(k, 3);
            let features = 3 * k * k;
            let rows =
                (0..features * features).map(|i| basis[i % features * features + i / features]);
            let taps = known(g, "basis_taps", [features, 3, k, k], rows);
            return in_blocks(strip, 3).conv2d(taps, None, sampling);
        }
        let mut x = strip;
        if block == 3 {
            // Across colours before it is so many planes more.
            let colours = known(g, "axes", [3, 3, 1, 1], axes.0);
            x = in_blocks(x, 3).conv2d(colours, None, every);
        }
        let cosines = cosines(k);
        let planes = x.reshape([c, 1, h, w]);
        if k <= LARGEST_AT_ONCE {
            let tap = |n: usize| {
                let (frequencies, taps) = (n / (k * k), n % (k * k));
                let along_row = cosines[frequencies / k * k + taps % k];
                along_row * cosines[frequencies % k * k + taps / k]
            };
            let taps = (0..k * k * k * k).map(tap);
            let taps = known(g, "cosine_taps", [k * k, 1, k, k], taps);
            return planes.conv2d(taps, None, sampling);
        }
        // Along rows, then along columns.
        let cosines = known(g, "cosines", [k, k], cosines);
        let along_row = cosines.reshape([k, 1, 1, k]);
        let along_column = cosines.reshape([k, 1, k, 1]);
        let planes = planes.conv2d(along_row, None, every);
        let planes = planes.reshape([c * k, 1, h, (w + 1).saturating_sub(k)]);
        planes.conv2d(along_column, None, sampling)
    }

    /// The deconvolved image [1, C, H, W].
    pub(super) fn deconvolve(&self, by: &Whitening<'g>) -> Tensor<'g> {
        let (k, block) = (self.layout.kernel_size, self.layout.block);
        let [c, h, w] = self.image_size();
        let minus_mean = MatMul {
            alpha: -1.0,
            ..MatMul::from(Transpose { a: false, b: true })
        };
        let columns = centre_kernels(by.deconv, block, k);
        let bias = columns.matmul_with(by.mean, None, minus_mean);
        let bias = bias.reshape([block]);
        let kernels = columns.reshape([block, block, k, k]);
        // Blocks are deconvolved alike, as images of their own.
        let images = in_blocks(self.padded, block);
        let y = images.conv2d(kernels, Some(bias), Conv2dGeometry::default());
        y.reshape([1, c, h, w])
    }
}

/// The columns of D that belong to the centre taps of a block's channels, as rows [block, F].
pub(super) fn centre_kernels(deconv: Tensor<'_>, block: usize, k: usize) -> Tensor<'_> {
    let centres = deconv.slice(1, k * k / 2, k * k, block);
    centres.permute(&[1, 0])
}

/// D from moments; all that is returned is of pixels. Asks for the input `eps` `[1]`.
pub(super) fn whiten<'g>(of: Moments<'g>, layout: &PatchForm, n_iter: usize) -> Whitening<'g> {
    let Moments { mean, cov } = of;
    let (g, features) = (mean.graph(), cov.size(0));
    let square = [features, features];
    let identity = g.state("identity", square, Role::Scratch, Init::Identity);
    let eps = g.input("eps", [1]);
    let cov_eps = (cov + identity * eps).reshape([1, features, features]);
    let deconv = cov_eps.newton_schulz(n_iter, CovGrad::Symmetric);
    let deconv = deconv.reshape(square);
    let cov_after = deconv.matmul(cov).matmul(deconv);
    let basis = layout.basis(g);
    let of_pixels = |x: Tensor<'g>| basis.matmul(x).matmul_t(basis);
    Whitening {
        cov: of_pixels(cov),
        deconv: of_pixels(deconv),
        cov_after: of_pixels(cov_after),
        mean: mean.matmul_t(basis),
        identity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A strip that ended within a stride would shift the patches of the next one.
    #[test]
    fn strips_are_whole_strides_within_their_length() {
        for (c, w, k, stride) in [
            (3, 4000, 3, 1),
            (3, 4000, 3, 7),
            (3, 4001, 7, 2),
            (1, 9999, 9, 1),
            (3, 6000, 15, 4),
            (512, 14, 3, 3),
        ] {
            let rows = rows_per_strip(c, w, k, stride);
            assert_eq!(rows % stride, 0, "{c} {w} {k} {stride}: {rows}");
            let fits = |rows: usize| {
                let patches = rows / stride * w.div_ceil(stride) * c * k * k;
                // Of patches larger than 7 x 7 also the cosines along each row of pixels, those around the strip included.
                let along_rows = if k > 7 { (rows + k - 1) * w * c * k } else { 0 };
                patches.max(along_rows) <= STRIP_LEN
            };
            assert!(
                fits(rows) && !fits(rows + stride),
                "{c} {w} {k} {stride}: {rows}"
            );
        }
        // One that is too wide is taken by single strides.
        assert_eq!(rows_per_strip(3, 1 << 22, 3, 4), 4);
    }

    /// Both ends of each range, and what lies next to them.
    #[test]
    fn options_are_taken_up_to_their_ends() {
        let base = WhitenOptions::default();
        let with = |name: &str, value: f32| {
            let (n, mut statistics) = (value as usize, base);
            let (mut kernel_size, mut block) = (3, 3);
            match name {
                "kernel_size" => kernel_size = n,
                "block" => block = n,
                "n_iter" => statistics.n_iter = n,
                "sampling_stride" => statistics.sampling_stride = n,
                _ => statistics.eps = value,
            }
            check_options(kernel_size, block, &statistics)
        };
        for (name, good, bad) in [
            ("kernel_size", [1.0, 15.0], [2.0, 17.0]),
            ("block", [1.0, 4096.0], [0.0, 0.0]),
            ("n_iter", [1.0, 100.0], [0.0, 101.0]),
            ("sampling_stride", [1.0, 64.0], [0.0, 65.0]),
            ("eps", [1e-30, 1e6], [0.0, 1.1e6]),
        ] {
            for value in good {
                with(name, value).unwrap_or_else(|e| panic!("{name} {value}: {e}"));
            }
            for value in bad {
                let text = with(name, value).unwrap_err().to_string();
                assert!(text.starts_with(&format!("`{name}` {value}")), "{text}");
            }
        }
    }
}
