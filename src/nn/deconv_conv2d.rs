//! Convolution of deconvolved input (sections 3.1 and 3.4, Algorithm 1).

use super::deconv::{self, DeconvOptions, Layout, Running, Side, Statistics, resolve_block};
use super::{Mode, default_init};
use crate::graph::{Graph, TensorId};
use crate::ops::{
    self, Conv2dGeometry, Transpose, Window, broadcast_to, constant, im2col, im2col_centred,
    matmul, matmul_with, mean_to, mul, permute, reshape, slice, sub,
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
        let (k, groups) = (self.kernel_size, self.geometry.groups.max(1));
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
        let block = self.block();
        let features = block * k * k;
        let running = Running::new(g, groups, features, false)?;
        let statistics = deconv::statistics(
            g,
            mode,
            &running,
            &self.options,
            x,
            |g, x| self.rows(g, x, features),
            |g, factors| self.by_feature(g, factors, features),
        )?;

        let scaled = self.scaled_images(g, x, weight, &statistics)?;
        if self.side(g, x) == Side::Patches {
            let y = self.on_patches(g, x, weight, bias, &statistics, scaled)?;
            return Ok((y, statistics));
        }
        let blocks = per_group / block;
        let strided = self.is_strided() && blocks > 1;
        let outputs = self.out_channels / groups;
        let mut rows = weight;
        if strided {
            rows = reshape(g, rows, [outputs, features, blocks])?;
            rows = permute(g, rows, &[0, 2, 1])?;
        }
        rows = reshape(g, rows, [groups, outputs * blocks, features])?;
        let (mut weight_eff, shift) = match scaled {
            None => {
                let scale = self.column_scale(g, &statistics, outputs)?;
                deconv::fold(g, rows, &statistics, scale)?
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
        if strided {
            weight_eff = reshape(g, weight_eff, [outputs, blocks, features])?;
            weight_eff = permute(g, weight_eff, &[0, 2, 1])?;
        }
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

    /// What D is multiplied into for images `x`.
    fn side(&self, g: &Graph, x: TensorId) -> Side {
        let (&[n, _, h, w], 0 | 1) = (g.shape(x).dims(), self.geometry.groups) else {
            return Side::Weights;
        };
        let positions = self.window(self.geometry.stride).positions(h, w);
        let positions = positions.map_or(usize::MAX, |[h, w]| n * h * w);
        deconv::cheaper_side(positions, self.out_channels)
    }

    /// The windows of the layer at another stride.
    fn window(&self, stride: usize) -> Window {
        Window {
            kernel_size: [self.kernel_size; 2],
            stride,
            padding: self.geometry.padding,
            dilation: self.geometry.dilation,
        }
    }

    /// ((patches - mean) D) weight^T + bias: what the folded weights give, for few positions. One group.
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
        let columns = self.in_channels * self.kernel_size * self.kernel_size;
        let features = g.shape(statistics.mean).len();
        let blocks = columns / features;
        let strided = self.is_strided() && blocks > 1;
        let centred = if strided {
            let patches = im2col(g, images, window)?;
            let count = g.shape(patches).dims()[0];
            let rows = reshape(g, patches, [count, features, blocks])?;
            let rows = permute(g, rows, &[0, 2, 1])?;
            let mean = reshape(g, statistics.mean, [1, 1, features])?;
            sub(g, rows, mean)?
        } else {
            let mean = scaled.map_or(statistics.mean, |scaled| scaled.mean);
            im2col_centred(g, images, mean, window)?
        };
        let count = g.shape(centred).len() / columns;
        let mut centred = reshape(g, centred, [1, count * blocks, features])?;
        if scaled.is_none() {
            let scale = self.column_scale(g, statistics, count)?;
            centred = deconv::scale_columns(g, centred, scale)?;
        }
        let mut white = deconv::times_deconv(g, centred, statistics.deconv)?;
        if strided {
            white = reshape(g, white, [count, blocks, features])?;
            white = permute(g, white, &[0, 2, 1])?;
        }
        let white = reshape(g, white, [count, columns])?;
        let weight = reshape(g, weight, [self.out_channels, columns])?;
        let by_rows = Transpose { a: false, b: true };
        let y = matmul_with(g, white, weight, bias, by_rows)?;
        let &[n, _, h, w] = g.shape(x).dims() else {
            return Err(Error::shape("deconv_conv2d", "images are not NCHW: a bug"));
        };
        let [out_h, out_w] = window.positions(h, w).unwrap_or([0; 2]);
        let y = reshape(g, y, [n, out_h, out_w, self.out_channels])?;
        permute(g, y, &[0, 3, 1, 2])
    }

    /// Between refreshes the factors of the columns of D scale the weights or the images `x`, whichever is less:
    /// the images and their mean, where they are less.
    fn scaled_images(
        &self,
        g: &mut Graph,
        x: TensorId,
        weight: TensorId,
        statistics: &Statistics,
    ) -> Result<Option<Scaled>> {
        let is_plain = self.geometry.groups <= 1 && !self.is_strided();
        let (Some(factors), true) = (statistics.scale, is_plain) else {
            return Ok(None);
        };
        if g.shape(x).len() >= g.shape(weight).len() {
            return Ok(None);
        }
        let (channels, taps) = (self.in_channels, self.kernel_size * self.kernel_size);
        let features = g.shape(statistics.mean).dims()[2];
        let blocks = channels * taps / features;
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

    /// The factors of the columns of D as they meet `rows` rows for each group, a row being what D meets of all blocks
    /// of a group, and the shape that those rows are to be seen in.
    fn column_scale(
        &self,
        g: &mut Graph,
        statistics: &Statistics,
        rows: usize,
    ) -> Result<Option<(TensorId, Shape)>> {
        let Some(factors) = statistics.scale else {
            return Ok(None);
        };
        let groups = self.geometry.groups.max(1);
        let (channels, taps) = (self.in_channels, self.kernel_size * self.kernel_size);
        let features = g.shape(statistics.mean).dims()[2];
        let blocks = channels / groups * taps / features;
        if self.is_strided() && blocks > 1 {
            let by_tap = reshape(g, factors, [channels, 1])?;
            let by_tap = broadcast_to(g, by_tap, [channels, taps])?;
            let by_feature = reshape(g, by_tap, [features, blocks])?;
            let by_block = permute(g, by_feature, &[1, 0])?;
            let by_block = reshape(g, by_block, [1, blocks, features])?;
            return Ok(Some((by_block, [rows, blocks, features].into())));
        }
        if groups > 1 {
            // Repeated for every row: a product with ones.
            let ones = constant(g, 1.0, [1, rows, 1])?;
            let factors = reshape(g, factors, [groups, 1, channels / groups])?;
            let repeated = matmul(g, ones, factors, Transpose::default())?;
            let repeated = reshape(g, repeated, [rows * channels, 1])?;
            return Ok(Some((repeated, [rows * channels, taps].into())));
        }
        let factors = reshape(g, factors, [1, channels, 1])?;
        Ok(Some((factors, [rows, channels, taps].into())))
    }

    /// Of `factors` of the channels, `[C]`, those of the features, [groups, features]: the mean over the blocks.
    fn by_feature(&self, g: &mut Graph, factors: TensorId, features: usize) -> Result<TensorId> {
        let groups = self.geometry.groups.max(1);
        let (channels, taps) = (self.in_channels, self.kernel_size * self.kernel_size);
        let blocks = channels / groups * taps / features;
        let by_channel = reshape(g, factors, [channels, 1])?;
        let by_tap = broadcast_to(g, by_channel, [channels, taps])?;
        let mean = if self.is_strided() {
            let by_block = reshape(g, by_tap, [groups, features, blocks])?;
            mean_to(g, by_block, [groups, features, 1])?
        } else {
            let by_block = reshape(g, by_tap, [groups, blocks, features])?;
            mean_to(g, by_block, [groups, 1, features])?
        };
        reshape(g, mean, [groups, features])
    }

    fn is_strided(&self) -> bool {
        self.options.layout == Layout::Strided
    }

    /// The rows that statistics are taken of: [rows, groups * features].
    fn rows(&self, g: &mut Graph, x: TensorId, features: usize) -> Result<TensorId> {
        let stride = self.geometry.stride * self.options.sampling_stride;
        let columns = self.in_channels * self.kernel_size * self.kernel_size;
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
        if self.geometry.groups > 1 {
            return Ok(patches);
        }
        let (count, blocks) = (g.shape(patches).dims()[0], columns / features);
        let mut rows = patches;
        if self.is_strided() && blocks > 1 {
            rows = reshape(g, rows, [count, features, blocks])?;
            rows = permute(g, rows, &[0, 2, 1])?;
        }
        reshape(g, rows, [count * blocks, features])
    }
}
