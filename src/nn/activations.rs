//! Element-wise functions as layers.

use super::{Layer, Mode};
use crate::graph::Tensor;

/// max(x, 0).
#[derive(Clone, Copy, Debug, Default)]
pub struct Relu;

/// 1 / (1 + exp(-x)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sigmoid;

impl Layer for Relu {
    /// `x` of any shape, to the same shape.
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        x.relu()
    }
}

impl Layer for Sigmoid {
    /// `x` of any shape, to the same shape.
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        x.sigmoid()
    }
}
