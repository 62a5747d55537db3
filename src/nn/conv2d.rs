//! Convolution.

use super::{Layer, Mode, weight_and_bias};
use crate::graph::Tensor;
use crate::ops::Conv2dGeometry;

/// States: `weight` [O, C / groups, k, k] and `bias` `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// C.
    pub in_channels: usize,
    /// O.
    pub out_channels: usize,
    /// k.
    pub kernel_size: usize,
    /// Stride, padding, dilation and groups.
    pub geometry: Conv2dGeometry,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Conv2d {
    /// PyTorch's defaults: stride 1, no padding, dilation 1, one group, a bias. `kernel_size` in pixels.
    #[must_use]
    pub const fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel_size,
            geometry: Conv2dGeometry::UNIT,
            bias: true,
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
}

impl Layer for Conv2d {
    /// `x` [N, C, H, W] to [N, O, `out_h`, `out_w`].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        let (k, per_group) = (
            self.kernel_size,
            self.in_channels / self.geometry.groups.max(1),
        );
        let shape = [self.out_channels, per_group, k, k];
        let (weight, bias) = weight_and_bias(x.graph(), &shape, self.bias);
        x.conv2d(weight, bias, self.geometry)
    }
}
