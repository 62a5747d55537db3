//! Convolution of deconvolved input (sections 3.1 and 3.4, Algorithm 1).

use super::deconv::{self, DeconvOptions, Layout, Running, Statistics, resolve_block};
use super::{Mode, default_init};
use crate::graph::{Graph, TensorId};
use crate::ops::{self, Conv2dGeometry, Window, im2col, permute, reshape, slice};
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
        let statistics =
            deconv::statistics(g, mode, &running, groups, features, &self.options, |g| {
                self.rows(g, x, features)
            })?;

        let blocks = per_group / block;
        let strided = self.is_strided() && blocks > 1;
        let outputs = self.out_channels / groups;
        let mut rows = weight;
        if strided {
            rows = reshape(g, rows, [outputs, features, blocks])?;
            rows = permute(g, rows, &[0, 2, 1])?;
        }
        rows = reshape(g, rows, [groups, outputs * blocks, features])?;
        let (mut weight_eff, shift) = deconv::fold(g, rows, &statistics)?;
        if strided {
            weight_eff = reshape(g, weight_eff, [outputs, blocks, features])?;
            weight_eff = permute(g, weight_eff, &[0, 2, 1])?;
        }
        let weight_eff = reshape(g, weight_eff, weight_shape)?;
        let bias_eff = deconv::fold_bias(g, shift, self.out_channels, bias)?;
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

    fn is_strided(&self) -> bool {
        self.options.layout == Layout::Strided
    }

    /// The rows that statistics are taken of: [rows, groups * features].
    fn rows(&self, g: &mut Graph, x: TensorId, features: usize) -> Result<TensorId> {
        let stride = self.geometry.stride * self.options.sampling_stride;
        let columns = self.in_channels * self.kernel_size * self.kernel_size;
        let patches = if self.kernel_size > 1 {
            let window = Window {
                kernel_size: [self.kernel_size; 2],
                stride,
                padding: self.geometry.padding,
                dilation: self.geometry.dilation,
            };
            im2col(g, x, window)?
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
