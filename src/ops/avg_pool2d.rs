//! Average pooling and its gradient. Bound: bytes of x and y, once each.

use crate::Result;
use crate::graph::op::{Kernel, Lowered, Lowering, Slot};
use crate::graph::{Op, Tensor};
use crate::ops::Pool2d;
use crate::shape::Shape;

/// See [`Tensor::avg_pool2d`].
#[derive(Debug, PartialEq)]
pub struct AvgPool2d {
    pool: Pool2d,
}

/// The adjoint of [`AvgPool2d`].
#[derive(Debug, PartialEq)]
pub(super) struct AvgPool2dGrad {
    pool: Pool2d,
    x: Shape,
}

impl Tensor<'_> {
    /// The mean of every window of this [N, C, H, W]; zeros of the padding count
    /// (PyTorch's `count_include_pad`). Fails if no window fits.
    #[must_use]
    #[track_caller]
    pub fn avg_pool2d(self, pool: Pool2d) -> Self {
        self.apply(AvgPool2d { pool })
    }

    /// The mean over all pixels of this [N, C, H, W], giving [N, C, 1, 1]. Fails if it is not NCHW.
    #[must_use]
    #[track_caller]
    pub fn global_avg_pool(self) -> Self {
        let [n, c, _, _] = self.dims();
        self.mean_to([n, c, 1, 1])
    }
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

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [x] = y.inputs();
        let (x, pool) = (x.shape(), self.pool);
        vec![Some(y_grad.apply(AvgPool2dGrad { pool, x }))]
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

    fn gradient<'g>(&self, _: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![Some(y_grad.avg_pool2d(self.pool))]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let [h, w] = [2, 3].map(|d| self.x.dims()[d]);
        lower(&self.pool, "backward", [&self.x, ctx.inputs[0]], h * w)
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check, check_tiled};
    use crate::ops::pool2d::tests::pool_cases;

    fn cases() -> Vec<Case> {
        let mut cases = pool_cases("avg_pool2d", |x, pool| x.avg_pool2d(pool), false);
        cases.push(case(
            "global_avg_pool",
            &[&[2, 3, 5, 7]],
            |x| x[0].global_avg_pool(),
            |x| x[0].sum_to(&[2, 3, 1, 1]).map(|v| v / 35.0),
        ));
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("avg_pool2d", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("avg_pool2d", &cases());
    }
}
