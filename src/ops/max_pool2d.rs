//! Max pooling and its gradient. Bound: bytes of x and y, once each.

use crate::graph::op::{Dispatch, Kernel, Lowered, Lowering, Slot, fold_workgroups, word};
use crate::graph::{Graph, Op, TensorId};
use crate::shape::{Shape, window_positions};
use crate::{Error, Result};

/// Square pooling windows, as in `PyTorch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Height and width of a window in pixels.
    pub kernel_size: usize,
    /// Distance between neighbouring windows in pixels.
    pub stride: usize,
    /// Padding around the image in pixels, at most half of `kernel_size`.
    pub padding: usize,
}

/// See [`max_pool2d`].
#[derive(Debug)]
pub struct MaxPool2d {
    pool: Pool2d,
}

/// The gradient of [`MaxPool2d`].
#[derive(Debug)]
pub(super) struct MaxPool2dGrad {
    pool: Pool2d,
}

/// The largest pixel of every window of `x` [N, C, H, W]; padding counts as -infinity. Where two
/// are largest the gradient goes to the first.
///
/// # Errors
/// [`Error::Shape`] if no window fits.
pub fn max_pool2d(g: &mut Graph, x: TensorId, pool: Pool2d) -> Result<TensorId> {
    g.add(MaxPool2d { pool }, &[x])
}

impl Pool2d {
    /// The pooled shape of NCHW `x`.
    pub(crate) fn output_shape(&self, x: &Shape) -> Result<Shape, String> {
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

    /// The words of the shaders' `Params` for NCHW `x` pooled to `y`.
    pub(crate) fn params(&self, x: &Shape, y: &Shape) -> Result<Vec<u32>> {
        let (&[n, c, h, w], &[.., out_h, out_w]) = (x.dims(), y.dims()) else {
            return Err(Error::shape("pool2d", format!("{x} is not NCHW")));
        };
        word(x.len())?;
        [
            n * c,
            h,
            w,
            out_h,
            out_w,
            self.kernel_size,
            self.stride,
            self.padding,
        ]
        .into_iter()
        .map(word)
        .collect()
    }
}

const SOURCE: &str = include_str!("../../shaders/max_pool2d.wgsl");

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.pool.output_shape(inputs[0])
    }

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        y_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let x = g.node(node).inputs[0];
        let pool = self.pool;
        Ok(vec![Some(
            g.add(MaxPool2dGrad { pool }, &[x, node, y_grad])?,
        )])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Dispatch {
            kernel: Kernel {
                name: "max_pool2d",
                source: SOURCE.into(),
                entry: "forward",
                constants: vec![],
            },
            params: self.pool.params(ctx.inputs[0], ctx.output)?,
            bindings: vec![Slot::Input(0), Slot::Output],
            workgroups: fold_workgroups(ctx.output.len().div_ceil(64)),
        }
        .into())
    }
}

impl Op for MaxPool2dGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let y = self.pool.output_shape(inputs[0])?;
        if *inputs[1] != y || *inputs[2] != y {
            return Err(format!("{} and {} are not {y}", inputs[1], inputs[2]));
        }
        Ok(inputs[0].clone())
    }

    fn gradient(&self, _: &mut Graph, _: TensorId, _: TensorId) -> Result<Vec<Option<TensorId>>> {
        Err(Error::shape(
            self.name(),
            "second derivatives of pooling are not implemented",
        ))
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Dispatch {
            kernel: Kernel {
                name: "max_pool2d",
                source: SOURCE.into(),
                entry: "backward",
                constants: vec![],
            },
            params: self.pool.params(ctx.inputs[0], ctx.inputs[1])?,
            bindings: vec![Slot::Input(0), Slot::Input(1), Slot::Input(2), Slot::Output],
            workgroups: fold_workgroups(ctx.output.len().div_ceil(64)),
        }
        .into())
    }
}
