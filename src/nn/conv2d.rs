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
