//! Max pooling and its gradient. Bound: bytes of x and y, once each.

use super::Pool2d;
use crate::graph::op::{Kernel, Lowered, Lowering, Slot};
use crate::graph::{Graph, Op, TensorId};
use crate::shape::Shape;
use crate::{Error, Result};

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

fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        name: "max_pool2d",
        source: include_str!("../../shaders/max_pool2d.wgsl").into(),
        entry,
        constants: vec![],
    }
}

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
        let [out_h, out_w] = [2, 3].map(|d| ctx.output.dims()[d]);
        let bindings = vec![Slot::Input(0), Slot::Output];
        let shapes = [ctx.inputs[0], ctx.output];
        let pool = &self.pool;
        Ok(pool
            .dispatch(kernel("forward"), shapes, out_h * out_w, bindings)?
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
        Err(Error::graph(
            self.name(),
            "second derivatives of pooling are not implemented",
        ))
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let pool = &self.pool;
        let [h, w] = [2, 3].map(|d| ctx.output.dims()[d]);
        let (entry, items) = if pool.stride >= pool.kernel_size {
            let cells = |size: usize| (size + pool.padding).div_ceil(pool.stride);
            ("backward_apart", cells(h) * cells(w))
        } else {
            ("backward", h * w)
        };
        let bindings = vec![Slot::Input(0), Slot::Input(1), Slot::Input(2), Slot::Output];
        let shapes = [ctx.inputs[0], ctx.inputs[1]];
        Ok(pool
            .dispatch(kernel(entry), shapes, items, bindings)?
            .into())
    }
}
