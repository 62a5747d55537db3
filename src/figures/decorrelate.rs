//! The deconvolution of an image as the figures show it, as nodes of a graph.
//!
//! Patches are those of every pixel, see [`Border`] for what is around the image. A deconvolved channel is the column of
//! (patches - mean) D that belongs to the channel's centre tap, which is a convolution with that
//! column of D: X D is never formed.
//!
//! Statistics are taken in the coordinates of [`Axes::basis`], or float32 would not carry them.

use super::axes::{Axes, cosines};
use crate::graph::{Graph, Init, Role, TensorId};
use crate::nn::resolve_block;
use crate::ops::{
    Conv2dGeometry, CovGrad, MatMul, Padding2d, Transpose, add, concat, conv2d, matmul,
    matmul_with, mean_to, mul, newton_schulz, pad2d, permute, reduce_sum, reshape, slice, sub,
    sum_to,
};
use crate::{Error, Result};

/// Variances of pixels are below 1: with such an eps D has long been a multiple of the identity.
const MAX_EPS: f32 = 1e6;
/// Largest k of which cosines along rows and columns are taken by one product: it has k times as many operations as
/// one after the other, but on the software adapter takes nine tenths of the time for 7.
const LARGEST_AT_ONCE: usize = 7;
/// Largest [`Statistics::n_iter`]: by then nothing changes any more.
const MAX_N_ITER: usize = 100;
/// Largest [`Statistics::sampling_stride`].
const MAX_SAMPLING_STRIDE: usize = 64;
/// Most values of a strip of patches, so that it fits a binding of 128 MiB.
const STRIP_LEN: usize = 16 << 20;

/// How D is computed of patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Added to the diagonal of the covariance.
    pub eps: f32,
    /// Denman–Beavers iterations.
    pub n_iter: usize,
    /// The covariance is that of every n-th patch in both directions; 1: of all.
    pub sampling_stride: usize,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            n_iter: 15,
            sampling_stride: 1,
        }
    }
}

impl Statistics {
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
                "--n-iter {n_iter} is not from 1 to {MAX_N_ITER}"
            )));
        }
        if !(eps > 0.0 && eps <= MAX_EPS) {
            let message = format!("--eps {eps} is not a positive number up to {MAX_EPS}");
            return Err(Error::Config(message));
        }
        if !(1..=MAX_SAMPLING_STRIDE).contains(&sampling_stride) {
            return Err(Error::Config(format!(
                "--sampling-stride {sampling_stride} is not from 1 to {MAX_SAMPLING_STRIDE}"
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
pub(super) struct Layout {
    /// k, odd.
    pub(super) kernel_size: usize,
    /// Channels of one covariance.
    pub(super) block: usize,
    /// Coordinates of colours.
    pub(super) axes: Axes,
}

/// The patches of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patches {
    /// [1, C, H + k - 1, W + k - 1].
    padded: TensorId,
    /// Its block is a divisor of C.
    pub(super) layout: Layout,
}

/// Of patches in blocks, F = block * k * k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whitening {
    /// [1, F].
    pub(super) mean: TensorId,
    /// [F, F], without eps.
    pub(super) cov: TensorId,
    /// [F, F].
    pub(super) deconv: TensorId,
    /// D cov D.
    pub(super) cov_after: TensorId,
    /// [F, F].
    pub(super) identity: TensorId,
}

impl Whitening {
    /// The same patches under another mean [1, F] and D [F, F].
    pub(super) fn with_deconv(
        &self,
        g: &mut Graph,
        mean: TensorId,
        deconv: TensorId,
    ) -> Result<Self> {
        let half = matmul(g, deconv, self.cov, Transpose::default())?;
        let by_row = Transpose { a: false, b: true };
        Ok(Self {
            mean,
            deconv,
            cov_after: matmul(g, half, deconv, by_row)?,
            ..*self
        })
    }
}

/// Refuses what cannot be computed.
///
/// # Errors
/// [`Error::Config`] naming the option.
pub(super) fn check_options(
    kernel_size: usize,
    block: usize,
    statistics: &Statistics,
) -> Result<()> {
    let fail = |message: String| Err(Error::Config(message));
    if kernel_size.is_multiple_of(2) || kernel_size > 15 {
        return fail(format!(
            "--kernel-size {kernel_size} must be odd (a patch has a centre) and at most 15"
        ));
    }
    if block == 0 {
        return fail("--block 0 must be at least 1".into());
    }
    statistics.check()
}

/// The patches of `x` [1, C, H, W] around every pixel.
///
/// # Errors
/// [`Error::Shape`] if `x` is no single image.
pub(super) fn patches(
    g: &mut Graph,
    x: TensorId,
    layout: Layout,
    border: Border,
) -> Result<Patches> {
    let &[1, c, h, w] = g.shape(x).dims() else {
        let message = format!("{} is not [1, C, H, W]", g.shape(x));
        return Err(Error::shape("patches", message));
    };
    let pad = layout.kernel_size / 2;
    let padded = match border {
        Border::Repeated => repeated(g, x, pad)?,
        Border::Zeros => {
            let before = i64::try_from(pad).unwrap_or(i64::MAX);
            let padding = Padding2d {
                before: [before; 2],
                size: [h + 2 * pad, w + 2 * pad],
                spacing: [1, 1],
            };
            pad2d(g, x, padding)?
        }
    };
    Ok(Patches {
        padded,
        layout: Layout {
            block: resolve_block(layout.block, c),
            ..layout
        },
    })
}

impl Layout {
    /// Values of a patch of one block.
    pub(super) fn features(&self) -> usize {
        self.block * self.kernel_size * self.kernel_size
    }
}

/// `x` [1, C, H, W] with its first and last row and column `pad` times more.
fn repeated(g: &mut Graph, mut x: TensorId, pad: usize) -> Result<TensorId> {
    if pad == 0 {
        return Ok(x);
    }
    for dim in [2, 3] {
        let n = g.shape(x).dims()[dim];
        let first = slice(g, x, dim, 0, 1, 1)?;
        let last = slice(g, x, dim, n - 1, 1, 1)?;
        let mut parts = vec![first; pad];
        parts.push(x);
        parts.extend(vec![last; pad]);
        x = concat(g, &parts, dim)?;
    }
    Ok(x)
}

/// Mean of each of a block's channels over blocks and pixels of `x` [1, C, H, W]: [1, block, 1, 1].
pub(super) fn block_means(g: &mut Graph, x: TensorId, block: usize) -> Result<TensorId> {
    let &[1, c, h, w] = g.shape(x).dims() else {
        let message = format!("{} is not [1, C, H, W]", g.shape(x));
        return Err(Error::shape("patches", message));
    };
    let blocks = reshape(g, x, [c / block, block, h, w])?;
    mean_to(g, blocks, [1, block, 1, 1])
}

impl Patches {
    /// The same patches less `shift` [1, block, 1, 1], a number for each of a block's channels, with what is around the
    /// image. Their covariance is the same, and keeps the digits that it would lose beside a large mean.
    pub(super) fn less(&self, g: &mut Graph, shift: TensorId) -> Result<Self> {
        let shape = g.shape(self.padded).clone();
        let &[_, c, h, w] = shape.dims() else {
            return Err(Error::shape("patches", "the image is not NCHW"));
        };
        let block = self.layout.block;
        let blocks = reshape(g, self.padded, [c / block, block, h, w])?;
        let blocks = sub(g, blocks, shift)?;
        Ok(Self {
            padded: reshape(g, blocks, shape)?,
            ..*self
        })
    }

    /// How many patches of one block every `stride`-th of them in both directions are.
    pub(super) fn count(&self, g: &Graph, stride: usize) -> usize {
        let dims = g.shape(self.padded).dims();
        let sampled = |n: usize| (n + 1 - self.layout.kernel_size).div_ceil(stride);
        dims[1] / self.layout.block * sampled(dims[2]) * sampled(dims[3])
    }

    /// Mean [1, F] and second moment [F, F] of every `stride`-th of them in both directions, in the coordinates
    /// of [`Axes::basis`]. Strip by strip: all patches of a photograph at once would not fit a binding.
    pub(super) fn moments(&self, g: &mut Graph, stride: usize) -> Result<(TensorId, TensorId)> {
        let (k, features) = (self.layout.kernel_size, self.layout.features());
        let &[_, c, padded_h, padded_w] = g.shape(self.padded).dims() else {
            return Err(Error::shape("patches", "the image is not NCHW"));
        };
        let (h, w, blocks) = (padded_h + 1 - k, padded_w + 1 - k, c / self.layout.block);
        let sampled = |n: usize| n.div_ceil(stride);
        let mut rows_per_strip = STRIP_LEN / (sampled(w) * c * k * k) * stride;
        if k > LARGEST_AT_ONCE {
            // Cosines along rows are taken of every pixel.
            let rows = (STRIP_LEN / (w * c * k)).saturating_sub(k - 1);
            rows_per_strip = rows_per_strip.min(rows / stride * stride);
        }
        let rows_per_strip = rows_per_strip.max(stride);
        let mut sums: Option<(TensorId, TensorId)> = None;
        for first in (0..h).step_by(rows_per_strip) {
            let rows = rows_per_strip.min(h - first);
            let strip = slice(g, self.padded, 2, first, 1, rows + k - 1)?;
            let planes = self.coordinates(g, strip, stride)?;
            let pixels = sampled(rows) * sampled(w);
            let share = (pixels as f64 / (sampled(h) * sampled(w) * blocks) as f64) as f32;
            let planes = reshape(g, planes, [blocks, features, pixels])?;
            let mean = reduce_sum(g, planes, [1, features, 1], share / pixels as f32)?;
            let gram = MatMul {
                alpha: share / pixels as f32,
                symmetric: true,
                ..MatMul::from(Transpose { a: false, b: true })
            };
            let moment = matmul_with(g, planes, planes, None, gram)?;
            let moment = sum_to(g, moment, [1, features, features])?;
            sums = Some(match sums {
                None => (mean, moment),
                Some((a, b)) => (add(g, a, mean)?, add(g, b, moment)?),
            });
        }
        let (mean, moment) =
            sums.ok_or_else(|| Error::shape("patches", "the image has no rows"))?;
        let mean = reshape(g, mean, [1, features])?;
        Ok((mean, reshape(g, moment, [features, features])?))
    }

    /// Every `stride`-th patch of a strip of rows [1, C, rows + k - 1, W + k - 1] in the coordinates of [`Axes::basis`]:
    /// a plane for each, of rows / stride x W / stride each.
    fn coordinates(&self, g: &mut Graph, strip: TensorId, stride: usize) -> Result<TensorId> {
        let Layout {
            kernel_size: k,
            block,
            axes,
        } = self.layout;
        let &[_, c, h, w] = g.shape(strip).dims() else {
            return Err(Error::shape("patches", "the strip is not NCHW"));
        };
        let sampling = Conv2dGeometry {
            stride,
            ..Conv2dGeometry::default()
        };
        if block == 3 && k <= 3 {
            // Few enough values for one product that takes colours and cosines at once.
            let basis = axes.basis(k, 3);
            let features = 3 * k * k;
            let rows = (0..features * features)
                .map(|i| basis[i % features * features + i / features] as f32);
            let init = Init::Values(rows.collect::<Vec<f32>>().into());
            let taps = g.state("basis_taps", [features, 3, k, k], Role::Scratch, init)?;
            let blocks = reshape(g, strip, [c / 3, 3, h, w])?;
            return conv2d(g, blocks, taps, None, sampling);
        }
        let mut x = strip;
        if block == 3 {
            // Across colours before it is so many planes more.
            let colours: Vec<f32> = axes.0.iter().map(|&v| v as f32).collect();
            let init = Init::Values(colours.into());
            let colours = g.state("axes", [3, 3, 1, 1], Role::Scratch, init)?;
            let blocks = reshape(g, x, [c / 3, 3, h, w])?;
            x = conv2d(g, blocks, colours, None, Conv2dGeometry::default())?;
        }
        let cosines = cosines(k);
        let planes = reshape(g, x, [c, 1, h, w])?;
        if k <= LARGEST_AT_ONCE {
            let tap = |n: usize| {
                let (frequencies, taps) = (n / (k * k), n % (k * k));
                let along_row = cosines[frequencies / k * k + taps % k];
                (along_row * cosines[frequencies % k * k + taps / k]) as f32
            };
            let init = Init::Values((0..k * k * k * k).map(tap).collect::<Vec<f32>>().into());
            let taps = g.state("cosine_taps", [k * k, 1, k, k], Role::Scratch, init)?;
            return conv2d(g, planes, taps, None, sampling);
        }
        // Along rows, then along columns.
        let cosines: Vec<f32> = cosines.iter().map(|&v| v as f32).collect();
        let init = Init::Values(cosines.into());
        let cosines = g.state("cosines", [k, k], Role::Scratch, init)?;
        let along_row = reshape(g, cosines, [k, 1, 1, k])?;
        let along_column = reshape(g, cosines, [k, 1, k, 1])?;
        let planes = conv2d(g, planes, along_row, None, Conv2dGeometry::default())?;
        let planes = reshape(g, planes, [c * k, 1, h, w + 1 - k])?;
        conv2d(g, planes, along_column, None, sampling)
    }

    /// The deconvolved image [1, C, H, W].
    pub(super) fn deconvolve(&self, g: &mut Graph, by: &Whitening) -> Result<TensorId> {
        let (k, block) = (self.layout.kernel_size, self.layout.block);
        let &[_, c, padded_h, padded_w] = g.shape(self.padded).dims() else {
            return Err(Error::shape("patches", "the image is not NCHW"));
        };
        let kernels = centre_kernels(g, by.deconv, block, k)?;
        let by_row = MatMul {
            alpha: -1.0,
            ..MatMul::from(Transpose { a: false, b: true })
        };
        let shift = matmul_with(g, kernels, by.mean, None, by_row)?;
        let bias = reshape(g, shift, [block])?;
        let kernels = reshape(g, kernels, [block, block, k, k])?;
        // Blocks are deconvolved alike, as images of their own.
        let images = reshape(g, self.padded, [c / block, block, padded_h, padded_w])?;
        let y = conv2d(g, images, kernels, Some(bias), Conv2dGeometry::default())?;
        reshape(g, y, [1, c, padded_h + 1 - k, padded_w + 1 - k])
    }
}

/// The columns of D that belong to the centre taps of a block's channels, as rows [block, F].
pub(super) fn centre_kernels(
    g: &mut Graph,
    deconv: TensorId,
    block: usize,
    k: usize,
) -> Result<TensorId> {
    let centres = slice(g, deconv, 1, k * k / 2, k * k, block)?;
    permute(g, centres, &[1, 0])
}

/// D from moments in the coordinates of [`Axes::basis`]; all that is returned is of pixels. The mean is not to
/// be large beside the deviation, or digits are lost. Asks for the input `eps` `[1]`.
pub(super) fn whiten(
    g: &mut Graph,
    mean: TensorId,
    second_moment: TensorId,
    layout: &Layout,
    n_iter: usize,
) -> Result<Whitening> {
    let features = g.shape(second_moment).dims()[0];
    let minus_mean = MatMul {
        alpha: -1.0,
        symmetric: true,
        ..MatMul::from(Transpose { a: true, b: false })
    };
    let cov = matmul_with(g, mean, mean, Some(second_moment), minus_mean)?;
    let square = [features, features];
    let identity = g.state("identity", square, Role::Scratch, Init::Identity)?;
    let eps = g.input("eps", [1]);
    let ridge = mul(g, identity, eps)?;
    let cov_eps = add(g, cov, ridge)?;
    let cov_eps = reshape(g, cov_eps, [1, features, features])?;
    let deconv = newton_schulz(g, cov_eps, n_iter, CovGrad::Symmetric)?;
    let deconv = reshape(g, deconv, square)?;
    let half = matmul(g, deconv, cov, Transpose::default())?;
    let cov_after = matmul(g, half, deconv, Transpose::default())?;

    let basis: Vec<f32> = layout
        .axes
        .basis(layout.kernel_size, layout.block)
        .iter()
        .map(|&v| v as f32)
        .collect();
    let basis = g.state("basis", square, Role::Scratch, Init::Values(basis.into()))?;
    let by_row = Transpose { a: false, b: true };
    let mut of_pixels = |x: TensorId| {
        let half = matmul(g, basis, x, Transpose::default())?;
        matmul(g, half, basis, by_row)
    };
    let (cov, deconv, cov_after) = (of_pixels(cov)?, of_pixels(deconv)?, of_pixels(cov_after)?);
    Ok(Whitening {
        mean: matmul(g, mean, basis, by_row)?,
        cov,
        deconv,
        cov_after,
        identity,
    })
}
