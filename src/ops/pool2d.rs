//! The windows of [`super::max_pool2d`] and [`super::avg_pool2d`].

use crate::graph::op::{Dispatch, Grid, Kernel, Params, Slot, word};
use crate::shape::{Shape, window_positions};
use crate::{Error, Result};

/// Square pooling windows, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Height and width of a window in pixels.
    pub kernel_size: usize,
    /// Distance between neighbouring windows in pixels.
    pub stride: usize,
    /// Padding around the image in pixels, at most half of `kernel_size`.
    pub padding: usize,
}

impl Pool2d {
    /// Windows of `kernel_size` x `kernel_size` pixels side by side, without padding: PyTorch's defaults.
    #[must_use]
    pub const fn new(kernel_size: usize) -> Self {
        Self {
            kernel_size,
            stride: kernel_size,
            padding: 0,
        }
    }

    /// Distance between neighbouring windows in pixels; `kernel_size` at first.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Padding around the image in pixels, at most half of `kernel_size`; none at first.
    #[must_use]
    pub const fn padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// The pooled shape of NCHW `x`.
    pub(super) fn output_shape(&self, x: &Shape) -> Result<Shape, String> {
        let &[n, c, h, w] = x.dims() else {
            return Err(format!("{x} is not NCHW"));
        };
        let count = |size| window_positions(size, self.kernel_size, self.stride, self.padding, 1);
        match (count(h), count(w)) {
            (Some(out_h), Some(out_w)) if 2 * self.padding <= self.kernel_size => {
                Ok([n, c, out_h, out_w].into())
            }
            _ => Err(format!("{self:?} does not fit {x}")),
        }
    }

    /// A dispatch of one invocation for every item of every plane, for `x` pooled to `y`.
    pub(super) fn dispatch(
        &self,
        kernel: Kernel,
        [x, y]: [&Shape; 2],
        items: usize,
        bindings: Vec<Slot>,
    ) -> Result<Dispatch> {
        let (&[n, c, h, w], &[.., out_h, out_w]) = (x.dims(), y.dims()) else {
            return Err(Error::bug(format!("pooling of {x}, which is not NCHW")));
        };
        word(x.len())?;
        let constants = [
            ("HEIGHT", h),
            ("WIDTH", w),
            ("OUT_H", out_h),
            ("OUT_W", out_w),
            ("KERNEL_SIZE", self.kernel_size),
            ("STRIDE", self.stride),
            ("PADDING", self.padding),
        ];
        let constants = constants.map(|(name, value)| Ok((name, word(value)?)));
        Ok(Dispatch {
            kernel: Kernel {
                constants: constants.into_iter().collect::<Result<_>>()?,
                ..kernel
            },
            params: Params::new().with("planes", n * c)?,
            bindings,
            grid: Grid::Invocations(n * c * items),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Pool2d;
    use crate::graph::Tensor;
    use crate::ops::gradients::{Case, case, geometry, reference};

    /// Windows that overlap, touch and leave gaps, with padding and without.
    pub(in crate::ops) fn pool_cases(
        name: &str,
        op: for<'g> fn(Tensor<'g>, Pool2d) -> Tensor<'g>,
        is_max: bool,
    ) -> Vec<Case> {
        let of = |(kernel_size, stride, padding)| {
            let pool = Pool2d {
                kernel_size,
                stride,
                padding,
            };
            let g = geometry(stride, padding, 1, 1);
            case(
                &format!("{name} {kernel_size} {stride} {padding}"),
                &[&[2, 3, 9, 7]],
                move |t| op(t[0], pool),
                move |t| reference::pool(&t[0], kernel_size, g, is_max),
            )
        };
        [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)].map(of).into()
    }
}
