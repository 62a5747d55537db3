//! Convolution.

use super::default_init;
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::ops::{self, Conv2dGeometry};

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
    /// `x` [N, C, H, W] to [N, O, `out_h`, `out_w`].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward(&self, g: &mut Graph, x: TensorId) -> Result<TensorId> {
        let k = self.kernel_size;
        let per_group = self.in_channels / self.geometry.groups.max(1);
        let init = default_init(per_group * k * k);
        let weight = g.parameter("weight", [self.out_channels, per_group, k, k], init.clone())?;
        let bias = match self.bias {
            true => Some(g.parameter("bias", [self.out_channels], init)?),
            false => None,
        };
        ops::conv2d(g, x, weight, bias, self.geometry)
    }
}
