//! Max pooling and its gradient. Bound: bytes of x and y once each; of the gradient those of x, y and both gradients.

use super::Pool2d;
use crate::graph::op::{Kernel, Lowered, Lowering, Slot};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`Tensor::max_pool2d`].
#[derive(Debug, PartialEq)]
pub struct MaxPool2d {
    pool: Pool2d,
}

/// The gradient of [`MaxPool2d`].
#[derive(Debug, PartialEq)]
pub(super) struct MaxPool2dGrad {
    pool: Pool2d,
}

impl Tensor<'_> {
    /// The largest pixel of every window of this [N, C, H, W]; padding counts as -infinity. Where two
    /// are largest the gradient goes to the first. Fails if no window fits.
    #[must_use]
    #[track_caller]
    pub fn max_pool2d(self, pool: Pool2d) -> Self {
        self.apply(MaxPool2d { pool })
    }
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

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let ([x], pool) = (y.inputs(), self.pool);
        vec![Some(y.graph().add(MaxPool2dGrad { pool }, &[x, y, y_grad]))]
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

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "second derivatives of pooling are not implemented";
        y.graph().fail(Error::graph(self.name(), message));
        vec![None; 3]
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

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, check, check_tiled};
    use crate::ops::pool2d::tests::pool_cases;

    fn cases() -> Vec<Case> {
        pool_cases("max_pool2d", |x, pool| x.max_pool2d(pool), true)
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("max_pool2d", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("max_pool2d", &cases());
    }
}
