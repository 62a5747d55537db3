//! Convolution of deconvolved input (sections 3.1 and 3.4, Algorithm 1).

use super::deconv::{self, DeconvOptions, Layout, Running, Side, Statistics, resolve_block};
use super::{Mode, default_init};
use crate::graph::{Graph, TensorId};
use crate::ops::{
    self, Conv2dGeometry, Transpose, Window, broadcast_to, constant, im2col, im2col_centred,
    im2col_matmul, is_cheaper_by_regions, matmul, matmul_with, mean_to, mul, permute, reshape,
    slice, sub,
};
use crate::shape::Shape;
use crate::{Error, Result};

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

/// Images times the factors of D's columns, and the mean of their patches, [1, C * k * k].
#[derive(Clone, Copy)]
struct Scaled {
    images: TensorId,
    mean: TensorId,
}

impl DeconvConv2d {
    /// `x` [N, C, H, W] to [N, O, `out_h`, `out_w`].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        Ok(self.forward_with_statistics(g, x, mode)?.0)
    }

    /// As [`DeconvConv2d::forward`], with the statistics that were used.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward_with_statistics(
        &self,
        g: &mut Graph,
        x: TensorId,
        mode: Mode,
    ) -> Result<(TensorId, Statistics)> {
        let sizes = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("kernel_size", self.kernel_size),
            ("stride", self.geometry.stride),
            ("dilation", self.geometry.dilation),
            ("sampling_stride", self.options.sampling_stride),
            ("block", self.options.block),
        ];
        deconv::refuse_zero("deconv_conv2d", &sizes)?;
        let (k, groups) = (self.kernel_size, self.groups());
        if !self.in_channels.is_multiple_of(groups) || !self.out_channels.is_multiple_of(groups) {
            let (c, o) = (self.in_channels, self.out_channels);
            let message = format!("{groups} groups do not divide {c} and {o} channels");
            return Err(Error::shape("deconv_conv2d", message));
        }
        let per_group = self.in_channels / groups;
        let weight_shape = [self.out_channels, per_group, k, k];
        let fan_in = per_group * k * k;
        let weight = g.parameter("weight", weight_shape, default_init(fan_in))?;
        let bias = match self.bias {
            true => Some(g.parameter("bias", [self.out_channels], default_init(fan_in))?),
            false => None,
        };
        let running = Running::new(g, groups, self.features(), false)?;
        let statistics = deconv::statistics(
            g,
            mode,
            &running,
            &self.options,
            x,
            |g, x| self.rows(g, x),
            |g, factors| {
                let by_block = self.by_block(g, factors)?;
                let mean = mean_to(g, by_block, [groups, 1, self.features()])?;
                reshape(g, mean, [groups, self.features()])
            },
        )?;

        let positions = self.positions(g, x).filter(|positions| {
            let count = positions.iter().product();
            deconv::cheaper_side(count, self.out_channels) == Side::Patches
        });
        // Images are scaled where they are less than what D is multiplied into.
        let are_images_less =
            positions.is_some() || g.shape(x).len() < weight_shape.iter().product();
        let scaled = match are_images_less {
            true => self.scaled_images(g, x, &statistics)?,
            false => None,
        };
        if let Some(positions) = positions {
            let y = self.on_patches(g, x, weight, bias, &statistics, scaled)?;
            // Rows are positions; the result is NCHW.
            let [n, h, w] = positions;
            let y = reshape(g, y, [n, h, w, self.out_channels])?;
            return Ok((permute(g, y, &[0, 3, 1, 2])?, statistics));
        }
        let (blocks, features) = (self.blocks(), self.features());
        let outputs = self.out_channels / groups;
        let rows = self.split_blocks(g, weight, outputs)?;
        let rows = reshape(g, rows, [groups, outputs * blocks, features])?;
        let (weight_eff, shift) = match scaled {
            None => {
                let factors = self.column_factors(g, &statistics, outputs)?;
                deconv::fold(g, rows, &statistics, factors)?
            }
            Some(Scaled { mean, .. }) => {
                // The convolution and the product with the mean both take this shape: so their gradients are added in one
                // product.
                let weight_eff = deconv::times_deconv(g, rows, statistics.deconv)?;
                let by_output = reshape(g, weight_eff, [outputs, blocks * features])?;
                let by_rows = Transpose { a: false, b: true };
                (by_output, matmul(g, by_output, mean, by_rows)?)
            }
        };
        let weight_eff = self.merge_blocks(g, weight_eff, outputs)?;
        let weight_eff = reshape(g, weight_eff, weight_shape)?;
        let bias_eff = deconv::fold_bias(g, shift, self.out_channels, bias)?;
        let x = scaled.map_or(x, |scaled| scaled.images);
        let y = ops::conv2d(g, x, weight_eff, Some(bias_eff), self.geometry)?;
        Ok((y, statistics))
    }

    /// Channels of one block.
    pub fn block(&self) -> usize {
        match self.geometry.groups {
            0 | 1 => resolve_block(self.options.block, self.in_channels),
            groups => self.in_channels / groups,
        }
    }

    fn groups(&self) -> usize {
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
        self.in_channels / self.groups() / self.block()
    }

    /// Whether features of a block do not lie together.
    fn is_strided(&self) -> bool {
        self.options.layout == Layout::Strided && self.blocks() > 1
    }

    /// [images, height, width] of the results for images `x`; `None` with groups, or if they do not fit.
    fn positions(&self, g: &Graph, x: TensorId) -> Option<[usize; 3]> {
        let (&[n, _, h, w], 1) = (g.shape(x).dims(), self.groups()) else {
            return None;
        };
        let window = self.window(self.geometry.stride);
        window.positions(h, w).map(|[h, w]| [n, h, w])
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
    fn split_blocks(&self, g: &mut Graph, columns: TensorId, rows: usize) -> Result<TensorId> {
        if !self.is_strided() {
            return Ok(columns);
        }
        let columns = reshape(g, columns, [rows, self.features(), self.blocks()])?;
        permute(g, columns, &[0, 2, 1])
    }

    /// The way back from [`Self::split_blocks`].
    fn merge_blocks(&self, g: &mut Graph, columns: TensorId, rows: usize) -> Result<TensorId> {
        if !self.is_strided() {
            return Ok(columns);
        }
        let columns = reshape(g, columns, [rows, self.blocks(), self.features()])?;
        permute(g, columns, &[0, 2, 1])
    }

    /// ((patches - mean) D) weight^T + bias, [positions, outputs]: what the folded weights give, for few positions. One
    /// group.
    fn on_patches(
        &self,
        g: &mut Graph,
        x: TensorId,
        weight: TensorId,
        bias: Option<TensorId>,
        statistics: &Statistics,
        scaled: Option<Scaled>,
    ) -> Result<TensorId> {
        let window = self.window(self.geometry.stride);
        let images = scaled.map_or(x, |scaled| scaled.images);
        let (blocks, features) = (self.blocks(), self.features());
        let columns = blocks * features;
        if !self.is_strided() && is_cheaper_by_regions(g.shape(images), &window) {
            let white = self.white_by_regions(g, images, statistics, scaled, window)?;
            return self.times_weight(g, white, weight, bias);
        }
        let centred = if self.is_strided() {
            let patches = im2col(g, images, window)?;
            let count = g.shape(patches).len() / columns;
            let rows = self.split_blocks(g, patches, count)?;
            let mean = reshape(g, statistics.mean, [1, 1, features])?;
            sub(g, rows, mean)?
        } else {
            let mean = scaled.map_or(statistics.mean, |scaled| scaled.mean);
            im2col_centred(g, images, mean, window)?
        };
        let count = g.shape(centred).len() / columns;
        let mut centred = reshape(g, centred, [1, count * blocks, features])?;
        if scaled.is_none() {
            let factors = self.column_factors(g, statistics, count)?;
            centred = deconv::scale_columns(g, centred, factors)?;
        }
        let white = deconv::times_deconv(g, centred, statistics.deconv)?;
        let white = self.merge_blocks(g, white, count)?;
        let white = reshape(g, white, [count, columns])?;
        self.times_weight(g, white, weight, bias)
    }

    /// `white` [positions, C * k * k] times weight^T, + bias.
    fn times_weight(
        &self,
        g: &mut Graph,
        white: TensorId,
        weight: TensorId,
        bias: Option<TensorId>,
    ) -> Result<TensorId> {
        let columns = g.shape(white).dims()[1];
        let weight = reshape(g, weight, [self.out_channels, columns])?;
        let by_rows = Transpose { a: false, b: true };
        matmul_with(g, white, weight, bias, by_rows)
    }

    /// (patches - mean) D of `images` whose patches are to a good part padding: patches D, less mean D.
    fn white_by_regions(
        &self,
        g: &mut Graph,
        images: TensorId,
        statistics: &Statistics,
        scaled: Option<Scaled>,
        window: Window,
    ) -> Result<TensorId> {
        let (blocks, features) = (self.blocks(), self.features());
        let mean = scaled.map_or(statistics.mean, |scaled| scaled.mean);
        let rows = g.shape(mean).len() / features;
        let mean = reshape(g, mean, [1, rows, features])?;
        let shift = deconv::times_deconv(g, mean, statistics.deconv)?;
        let shift = ops::neg(g, shift)?;
        let shift = reshape(g, shift, [rows, features])?;
        // The mean is that of each block, or the same for all.
        let shift = broadcast_to(g, shift, [blocks, features])?;
        let shift = reshape(g, shift, [blocks * features])?;
        let deconv = reshape(g, statistics.deconv, [features, features])?;
        let is_symmetric = deconv::is_symmetric(features);
        im2col_matmul(g, images, deconv, Some(shift), window, is_symmetric)
    }

    /// Between refreshes: the images and the mean patch times the factors of D's columns. `None` where factors do not
    /// fit the images: then the weights, or the patches, are to be scaled in their place.
    fn scaled_images(
        &self,
        g: &mut Graph,
        x: TensorId,
        statistics: &Statistics,
    ) -> Result<Option<Scaled>> {
        let is_plain = self.groups() == 1 && !self.is_strided();
        let (Some(factors), true) = (statistics.factors, is_plain) else {
            return Ok(None);
        };
        let (channels, taps) = (self.in_channels, self.taps());
        let (blocks, features) = (self.blocks(), self.features());
        let of_images = reshape(g, factors, [1, channels, 1, 1])?;
        let images = mul(g, x, of_images)?;
        let mean = reshape(g, statistics.mean, [1, features])?;
        let mean = broadcast_to(g, mean, [blocks, features])?;
        let mean = reshape(g, mean, [channels, taps])?;
        let of_taps = reshape(g, factors, [channels, 1])?;
        let mean = mul(g, mean, of_taps)?;
        let mean = reshape(g, mean, [1, channels * taps])?;
        Ok(Some(Scaled { images, mean }))
    }

    /// The factors of the columns of D, and the view of `rows` rows for each group that they broadcast to. A row has all
    /// blocks of its group.
    fn column_factors(
        &self,
        g: &mut Graph,
        statistics: &Statistics,
        rows: usize,
    ) -> Result<Option<(TensorId, Shape)>> {
        let Some(factors) = statistics.factors else {
            return Ok(None);
        };
        let (channels, taps, groups) = (self.in_channels, self.taps(), self.groups());
        if self.is_strided() {
            let by_block = self.by_block(g, factors)?;
            let view = [rows, self.blocks(), self.features()];
            return Ok(Some((by_block, view.into())));
        }
        if groups > 1 {
            // Factors of a group do not lie beside its rows, so they cannot broadcast: a product with ones repeats them.
            let ones = constant(g, 1.0, [1, rows, 1])?;
            let factors = reshape(g, factors, [groups, 1, channels / groups])?;
            let repeated = matmul(g, ones, factors, Transpose::default())?;
            let repeated = reshape(g, repeated, [rows * channels, 1])?;
            return Ok(Some((repeated, [rows * channels, taps].into())));
        }
        let factors = reshape(g, factors, [1, channels, 1])?;
        Ok(Some((factors, [rows, channels, taps].into())))
    }

    /// Factors of the channels, `[C]`, as those of all features, [groups, blocks, features].
    fn by_block(&self, g: &mut Graph, factors: TensorId) -> Result<TensorId> {
        let (channels, taps) = (self.in_channels, self.taps());
        let by_channel = reshape(g, factors, [channels, 1])?;
        let by_tap = broadcast_to(g, by_channel, [channels, taps])?;
        let by_block = self.split_blocks(g, by_tap, self.groups())?;
        let shape = [self.groups(), self.blocks(), self.features()];
        reshape(g, by_block, shape)
    }

    /// The rows that statistics are taken of: [rows, groups * features].
    fn rows(&self, g: &mut Graph, x: TensorId) -> Result<TensorId> {
        let stride = self.geometry.stride * self.options.sampling_stride;
        let columns = self.in_channels * self.taps();
        let patches = if self.kernel_size > 1 {
            im2col(g, x, self.window(stride))?
        } else {
            // Every stride^2-th pixel of the images laid end to end.
            let pixels = permute(g, x, &[0, 2, 3, 1])?;
            let count = g.shape(pixels).len() / columns.max(1);
            let pixels = reshape(g, pixels, [count, columns])?;
            let step = stride * stride;
            slice(g, pixels, 0, 0, step, count.div_ceil(step))?
        };
        if self.groups() > 1 {
            return Ok(patches);
        }
        let count = g.shape(patches).dims()[0];
        let rows = self.split_blocks(g, patches, count)?;
        reshape(g, rows, [count * self.blocks(), self.features()])
    }
}
