//! Average pooling and its gradient. Bound: bytes of x and y, once each.

use crate::graph::op::{Kernel, Lowered, Lowering, Slot};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{Pool2d, mean_to};
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`avg_pool2d`].
#[derive(Debug)]
pub struct AvgPool2d {
    pool: Pool2d,
}

/// The adjoint of [`AvgPool2d`].
#[derive(Debug)]
pub(super) struct AvgPool2dGrad {
    pool: Pool2d,
    x: Shape,
}

/// The mean of every window of `x` [N, C, H, W]; zeros of the padding count
/// (PyTorch's `count_include_pad`).
///
/// # Errors
/// [`Error::Shape`] if no window fits.
pub fn avg_pool2d(g: &mut Graph, x: TensorId, pool: Pool2d) -> Result<TensorId> {
    g.add(AvgPool2d { pool }, &[x])
}

/// The mean over all pixels of `x` [N, C, H, W], giving [N, C, 1, 1].
///
/// # Errors
/// [`Error::Shape`] if `x` is not NCHW.
pub fn global_avg_pool(g: &mut Graph, x: TensorId) -> Result<TensorId> {
    let &[n, c, _, _] = g.shape(x).dims() else {
        let message = format!("{} is not NCHW", g.shape(x));
        return Err(Error::shape("global_avg_pool", message));
    };
    mean_to(g, x, [n, c, 1, 1])
}

/// `items`: what one plane of the result has.
fn lower(pool: &Pool2d, entry: &'static str, shapes: [&Shape; 2], items: usize) -> Result<Lowered> {
    let kernel = Kernel {
        name: "avg_pool2d",
        source: include_str!("../../shaders/avg_pool2d.wgsl").into(),
        entry,
        constants: vec![],
    };
    let bindings = vec![Slot::Input(0), Slot::Output];
    Ok(pool.dispatch(kernel, shapes, items, bindings)?.into())
}

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
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
        let x = g.shape(g.node(node).inputs[0]).clone();
        let pool = self.pool;
        Ok(vec![Some(g.add(AvgPool2dGrad { pool, x }, &[y_grad])?)])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let [out_h, out_w] = [2, 3].map(|d| ctx.output.dims()[d]);
        lower(
            &self.pool,
            "forward",
            [ctx.inputs[0], ctx.output],
            out_h * out_w,
        )
    }
}

impl Op for AvgPool2dGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_grad"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let y = self.pool.output_shape(&self.x)?;
        if *inputs[0] != y {
            return Err(format!("{} is not {y}", inputs[0]));
        }
        Ok(self.x.clone())
    }

    fn gradient(
        &self,
        g: &mut Graph,
        _node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![Some(avg_pool2d(g, output_grad, self.pool)?)])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let [h, w] = [2, 3].map(|d| self.x.dims()[d]);
        lower(&self.pool, "backward", [&self.x, ctx.inputs[0]], h * w)
    }
}
