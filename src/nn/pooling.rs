//! Pooling and flattening as layers.

use super::{Layer, Mode};
use crate::graph::Tensor;
use crate::ops::Pool2d;

/// The largest value of windows of an image.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d {
    /// The windows.
    pub pool: Pool2d,
}

impl MaxPool2d {
    /// Windows of `kernel_size` x `kernel_size` pixels side by side, without padding: PyTorch's defaults.
    #[must_use]
    pub const fn new(kernel_size: usize) -> Self {
        Self {
            pool: Pool2d::new(kernel_size),
        }
    }

    /// Distance between neighbouring windows in pixels; `kernel_size` at first.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.pool = self.pool.stride(stride);
        self
    }

    /// Padding around the image in pixels, at most half of `kernel_size`; none at first.
    #[must_use]
    pub const fn padding(mut self, padding: usize) -> Self {
        self.pool = self.pool.padding(padding);
        self
    }
}

impl Layer for MaxPool2d {
    /// `x` [N, C, H, W] to [N, C, `out_h`, `out_w`].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        x.max_pool2d(self.pool)
    }
}

/// The mean of windows of an image.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d {
    /// The windows.
    pub pool: Pool2d,
}

impl AvgPool2d {
    /// Windows of `kernel_size` x `kernel_size` pixels side by side, without padding: PyTorch's defaults.
    #[must_use]
    pub const fn new(kernel_size: usize) -> Self {
        Self {
            pool: Pool2d::new(kernel_size),
        }
    }

    /// Distance between neighbouring windows in pixels; `kernel_size` at first.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.pool = self.pool.stride(stride);
        self
    }

    /// Padding around the image in pixels, at most half of `kernel_size`; none at first.
    #[must_use]
    pub const fn padding(mut self, padding: usize) -> Self {
        self.pool = self.pool.padding(padding);
        self
    }
}

impl Layer for AvgPool2d {
    /// `x` [N, C, H, W] to [N, C, `out_h`, `out_w`].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        x.avg_pool2d(self.pool)
    }
}

/// The mean of every channel of an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlobalAvgPool;

impl Layer for GlobalAvgPool {
    /// `x` [N, C, H, W] to [N, C, 1, 1].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        x.global_avg_pool()
    }
}

/// Images as rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Layer for Flatten {
    /// `x` [N, ...] to [N, rest].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        let rows = x.size(0).max(1);
        x.reshape([rows, x.len() / rows])
    }
}
