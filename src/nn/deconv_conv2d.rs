//! Convolution of deconvolved input (sections 3.1 and 3.4, Algorithm 1).

use super::deconv::{self, DeconvOptions, Layout, Running, Side, Statistics, resolve_block};
use super::{Layer, Mode, weight_and_bias};
use crate::Error;
use crate::graph::Tensor;
use crate::ops::{Conv2dGeometry, Transpose, Window, is_cheaper_by_regions};
use crate::shape::Shape;

/// y = conv(x, weight D) + (bias - (weight D) mean), D the inverse square root of the covariance
/// of the patches of x.
///
/// States: `weight` [O, C / groups, k, k], `bias` `[O]`, `running_mean` [groups, features],
/// `running_deconv` [groups, features, features], features = block * k * k.
#[derive(Clone, Copy, Debug)]
pub struct DeconvConv2d {
    /// C.
    pub in_channels: usize,
    /// O.
    pub out_channels: usize,
    /// k.
    pub kernel_size: usize,
    /// Stride, padding, dilation and groups. With groups > 1 a block is a group's channels.
    pub geometry: Conv2dGeometry,
    /// Whether there is a bias.
    pub bias: bool,
    /// Deconvolution.
    pub options: DeconvOptions,
}

impl Layer for DeconvConv2d {
    /// `x` [N, C, H, W] to [N, O, `out_h`, `out_w`].
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        self.forward_with_statistics(x, mode).0
    }
}

impl DeconvConv2d {
    /// PyTorch's defaults for the convolution (stride 1, no padding, dilation 1, one group, a bias), those of the paper's
    /// code for the deconvolution. `kernel_size` in pixels.
    #[must_use]
    pub const fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel_size,
            geometry: Conv2dGeometry::UNIT,
            bias: true,
            options: DeconvOptions::PAPER,
        }
    }

    /// Distance between neighbouring outputs in pixels; 1 at first.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.geometry.stride = stride;
        self
    }

    /// Zeros around the image in pixels; 0 at first.
    #[must_use]
    pub const fn padding(mut self, padding: usize) -> Self {
        self.geometry.padding = padding;
        self
    }

    /// Distance between neighbouring taps in pixels; 1 at first.
    #[must_use]
    pub const fn dilation(mut self, dilation: usize) -> Self {
        self.geometry.dilation = dilation;
        self
    }

    /// Channels are divided into this many groups that do not mix, so it must divide both numbers of them; 1 at first.
    #[must_use]
    pub const fn groups(mut self, groups: usize) -> Self {
        self.geometry.groups = groups;
        self
    }

    /// Whether there is a bias; there is one at first.
    #[must_use]
    pub const fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// How the input is deconvolved.
    #[must_use]
    pub const fn options(mut self, options: DeconvOptions) -> Self {
        self.options = options;
        self
    }

    /// As [`Layer::forward`], with the statistics that were used.
    #[track_caller]
    pub fn forward_with_statistics<'g>(
        &self,
        x: Tensor<'g>,
        mode: Mode,
    ) -> (Tensor<'g>, Statistics<'g>) {
        let g = x.graph();
        self.check(x);
        if g.has_failed() {
            return (x, Statistics::none(x));
        }
        let (k, groups, features) = (self.kernel_size, self.group_count(), self.features());
        let weight_shape = [self.out_channels, self.in_channels / groups, k, k];
        let (weight, bias) = weight_and_bias(g, &weight_shape, self.bias);
        let running = Running::new(g, groups, features, false);
        let rows = |x| self.rows(x);
        let by_feature = |factors| {
            let mean = self.by_block(factors).mean_to([groups, 1, features]);
            mean.reshape([groups, features])
        };
        let statistics = deconv::statistics(mode, &running, &self.options, x, rows, by_feature);

        let positions = self.positions(x).filter(|positions| {
            let count = positions.iter().product();
            deconv::cheaper_side(count, self.out_channels) == Side::Patches
        });
        // Images are scaled where they are less than what D is multiplied into.
        let (images, scaled) = match positions.is_some() || x.len() < weight.len() {
            true => self.scaled_images(x, statistics),
            false => (x, statistics),
        };
        let y = match positions {
            Some([n, h, w]) => {
                // Rows are positions; the result is NCHW.
                let y = self.on_patches(images, weight, bias, &scaled);
                let y = y.reshape([n, h, w, self.out_channels]);
                y.permute(&[0, 3, 1, 2])
            }
            None => self.on_weights(images, weight, bias, &scaled),
        };
        (y, statistics)
    }

    /// Fails if sizes are 0, or do not fit each other or `x`.
    #[track_caller]
    fn check(&self, x: Tensor<'_>) {
        let (g, groups) = (x.graph(), self.group_count());
        let (c, o) = (self.in_channels, self.out_channels);
        let sizes = [
            ("in_channels", c),
            ("out_channels", o),
            ("kernel_size", self.kernel_size),
            ("stride", self.geometry.stride),
            ("dilation", self.geometry.dilation),
            ("sampling_stride", self.options.sampling_stride),
            ("block", self.options.block),
        ];
        deconv::refuse_zero(g, "deconv_conv2d", &sizes);
        if !c.is_multiple_of(groups) || !o.is_multiple_of(groups) {
            let message = format!("{groups} groups do not divide {c} and {o} channels");
            g.fail(Error::shape("deconv_conv2d", message));
        }
        let [_, channels, _, _] = x.dims();
        if channels != c {
            let message = format!("{} does not have {c} channels", x.shape());
            g.fail(Error::shape("deconv_conv2d", message));
        }
    }

    /// Channels of one block.
    pub fn block(&self) -> usize {
        match self.geometry.groups {
            0 | 1 => resolve_block(self.options.block, self.in_channels),
            groups => self.in_channels / groups,
        }
    }

    fn group_count(&self) -> usize {
        self.geometry.groups.max(1)
    }

    fn taps(&self) -> usize {
        self.kernel_size * self.kernel_size
    }

    /// Of a block.
    fn features(&self) -> usize {
        self.block() * self.taps()
    }

    /// Blocks of a group: they share one D.
    fn blocks(&self) -> usize {
        self.in_channels / self.group_count() / self.block()
    }

    /// Whether features of a block do not lie together.
    fn is_strided(&self) -> bool {
        self.options.layout == Layout::Strided && self.blocks() > 1
    }

    /// [images, height, width] of the results for images `x`; `None` with groups, or if they do not fit.
    fn positions(&self, x: Tensor<'_>) -> Option<[usize; 3]> {
        let [n, _, h, w] = x.dims();
        let [h, w] = self.window(self.geometry.stride).positions(h, w)?;
        (self.group_count() == 1).then_some([n, h, w])
    }

    /// The layer's windows at `stride`.
    fn window(&self, stride: usize) -> Window {
        Window {
            kernel_size: [self.kernel_size; 2],
            stride,
            padding: self.geometry.padding,
            dilation: self.geometry.dilation,
        }
    }

    /// `rows` rows of a group's columns, in the order of blocks and their features: [rows, blocks, features]. (As
    /// they are where that is their order.)
    fn split_blocks<'g>(&self, columns: Tensor<'g>, rows: usize) -> Tensor<'g> {
        match self.is_strided() {
            true => {
                let columns = columns.reshape([rows, self.features(), self.blocks()]);
                columns.permute(&[0, 2, 1])
            }
            false => columns,
        }
    }

    /// The way back from [`Self::split_blocks`].
    fn merge_blocks<'g>(&self, columns: Tensor<'g>, rows: usize) -> Tensor<'g> {
        match self.is_strided() {
            true => {
                let columns = columns.reshape([rows, self.blocks(), self.features()]);
                columns.permute(&[0, 2, 1])
            }
            false => columns,
        }
    }

    /// conv(images, weight D) + (bias - (weight D) mean), `statistics` being those of [`Self::scaled_images`].
    fn on_weights<'g>(
        &self,
        images: Tensor<'g>,
        weight: Tensor<'g>,
        bias: Option<Tensor<'g>>,
        statistics: &Statistics<'g>,
    ) -> Tensor<'g> {
        let (groups, blocks, features) = (self.group_count(), self.blocks(), self.features());
        let outputs = self.out_channels / groups;
        let rows = self.split_blocks(weight, outputs);
        let rows = rows.reshape([groups, outputs * blocks, features]);
        let (weight_eff, shift) = if is_of_patches(statistics.mean) {
            // The convolution and the product with the mean both take this shape: so their gradients are added in one
            // product.
            let weight_eff = deconv::times_deconv(rows, statistics.deconv);
            let by_output = weight_eff.reshape([outputs, blocks * features]);
            (by_output, by_output.matmul_t(statistics.mean))
        } else {
            let factors = self.column_factors(statistics, outputs);
            deconv::fold(rows, statistics, factors)
        };
        let weight_eff = self
            .merge_blocks(weight_eff, outputs)
            .reshape(weight.shape());
        let bias_eff = deconv::fold_bias(shift, self.out_channels, bias);
        images.conv2d(weight_eff, Some(bias_eff), self.geometry)
    }

    /// ((patches - mean) D) weight^T + bias, [positions, outputs]: what the folded weights give, for few positions. One
    /// group.
    fn on_patches<'g>(
        &self,
        images: Tensor<'g>,
        weight: Tensor<'g>,
        bias: Option<Tensor<'g>>,
        statistics: &Statistics<'g>,
    ) -> Tensor<'g> {
        let window = self.window(self.geometry.stride);
        let (blocks, features) = (self.blocks(), self.features());
        let columns = blocks * features;
        let by_regions = !self.is_strided() && is_cheaper_by_regions(&images.shape(), &window);
        let white = if by_regions {
            self.white_by_regions(images, statistics, window)
        } else {
            let centred = if self.is_strided() {
                let patches = images.im2col(window);
                let rows = self.split_blocks(patches, patches.len() / columns);
                rows - statistics.mean.reshape([1, 1, features])
            } else {
                images.im2col_centred(statistics.mean, window)
            };
            let count = centred.len() / columns;
            let centred = centred.reshape([1, count * blocks, features]);
            let centred = deconv::scale_columns(centred, self.column_factors(statistics, count));
            let white = deconv::times_deconv(centred, statistics.deconv);
            self.merge_blocks(white, count).reshape([count, columns])
        };
        let weight = weight.reshape([self.out_channels, columns]);
        white.matmul_with(weight, bias, Transpose { a: false, b: true })
    }

    /// (patches - mean) D of `images` whose patches are to a good part padding: patches D, less mean D.
    fn white_by_regions<'g>(
        &self,
        images: Tensor<'g>,
        statistics: &Statistics<'g>,
        window: Window,
    ) -> Tensor<'g> {
        let (blocks, features) = (self.blocks(), self.features());
        // The mean is that of each block, or the same for all.
        let rows = statistics.mean.len() / features;
        let mean = statistics.mean.reshape([1, rows, features]);
        let shift = (-deconv::times_deconv(mean, statistics.deconv)).reshape([rows, features]);
        let shift = shift.broadcast_to([blocks, features]);
        let shift = shift.reshape([blocks * features]);
        let deconv = statistics.deconv.reshape([features, features]);
        let is_symmetric = deconv::is_symmetric(features);
        images.im2col_matmul(deconv, Some(shift), window, is_symmetric)
    }

    /// Between refreshes: the images and the mean, then that of the patches, [1, C * k * k], times the factors of D's
    /// columns. As they are where factors do not fit the images: then the weights, or the patches, are to be scaled in
    /// their place.
    fn scaled_images<'g>(
        &self,
        x: Tensor<'g>,
        statistics: Statistics<'g>,
    ) -> (Tensor<'g>, Statistics<'g>) {
        let is_plain = self.group_count() == 1 && !self.is_strided();
        let (Some(factors), true) = (statistics.factors, is_plain) else {
            return (x, statistics);
        };
        let (channels, taps) = (self.in_channels, self.taps());
        let (blocks, features) = (self.blocks(), self.features());
        let images = x * factors.reshape([1, channels, 1, 1]);
        let by_block = statistics
            .mean
            .reshape([1, features])
            .broadcast_to([blocks, features]);
        let mean = by_block.reshape([channels, taps]) * factors.reshape([channels, 1]);
        let scaled = Statistics {
            mean: mean.reshape([1, channels * taps]),
            factors: None,
            ..statistics
        };
        (images, scaled)
    }

    /// The factors of the columns of D, and the view of `rows` rows for each group that they broadcast to. A row has all
    /// blocks of its group.
    fn column_factors<'g>(
        &self,
        statistics: &Statistics<'g>,
        rows: usize,
    ) -> Option<(Tensor<'g>, Shape)> {
        let factors = statistics.factors?;
        let (channels, taps, groups) = (self.in_channels, self.taps(), self.group_count());
        if self.is_strided() {
            let view = [rows, self.blocks(), self.features()];
            return Some((self.by_block(factors), view.into()));
        }
        if groups > 1 {
            // Factors of a group do not lie beside its rows, so they cannot broadcast: a product with ones repeats them.
            let ones = factors.graph().constant(1.0, [1, rows, 1]);
            let repeated = ones.matmul(factors.reshape([groups, 1, channels / groups]));
            let repeated = repeated.reshape([rows * channels, 1]);
            return Some((repeated, [rows * channels, taps].into()));
        }
        let view = [rows, channels, taps];
        Some((factors.reshape([1, channels, 1]), view.into()))
    }

    /// Factors of the channels, `[C]`, as those of all features, [groups, blocks, features].
    fn by_block<'g>(&self, factors: Tensor<'g>) -> Tensor<'g> {
        let (channels, taps) = (self.in_channels, self.taps());
        let by_tap = factors
            .reshape([channels, 1])
            .broadcast_to([channels, taps]);
        let by_block = self.split_blocks(by_tap, self.group_count());
        by_block.reshape([self.group_count(), self.blocks(), self.features()])
    }

    /// The rows that statistics are taken of: [rows, groups * features].
    fn rows<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let stride = self.geometry.stride * self.options.sampling_stride;
        let columns = self.in_channels * self.taps();
        let patches = if self.kernel_size > 1 {
            x.im2col(self.window(stride))
        } else {
            // Every stride^2-th pixel of the images laid end to end.
            let (count, step) = (x.len() / columns, stride * stride);
            let pixels = x.permute(&[0, 2, 3, 1]).reshape([count, columns]);
            pixels.slice(0, 0, step, count.div_ceil(step))
        };
        if self.group_count() > 1 {
            return patches;
        }
        let count = patches.size(0);
        let rows = self.split_blocks(patches, count);
        rows.reshape([count * self.blocks(), self.features()])
    }
}

/// Whether a mean is that of patches, of all blocks, and not one that blocks share.
fn is_of_patches(mean: Tensor<'_>) -> bool {
    mean.rank() == 2
}
