//! Labels as rows of zeros with a one. Bound: bytes of the result.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::one_hot`].
#[derive(Debug, PartialEq)]
pub struct OneHot {
    classes: usize,
}

impl Tensor<'_> {
    /// Labels `[N]` (class numbers as floats) as [N, classes]; a negative label gives zeros, one that is no class NaN.
    /// No gradient. Fails if this is not `[N]`.
    #[must_use]
    #[track_caller]
    pub fn one_hot(self, classes: usize) -> Self {
        self.apply(OneHot { classes })
    }
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match *inputs[0].dims() {
            [rows] => Ok([rows, self.classes].into()),
            _ => Err(format!("labels {} are not [N]", inputs[0])),
        }
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        word(ctx.output.len())?;
        Ok(Dispatch {
            kernel: Kernel {
                name: "one_hot",
                source: include_str!("../../shaders/one_hot.wgsl").into(),
                entry: "main",
                constants: vec![],
            },
            params: Params::new()
                .with("rows", ctx.inputs[0].len())?
                .with("classes", self.classes)?
                .with("nan", f32::NAN)?,
            bindings: vec![Slot::Input(0), Slot::Output],
            grid: Grid::Invocations(ctx.output.len()),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, LABELS, case, check, labels, reference};

    fn cases() -> Vec<Case> {
        vec![case(
            "one_hot",
            &[&[7, 5]],
            |x| labels(x[0].graph()).one_hot(5) * x[0],
            |x| {
                reference::Tensor::from_fn(&[7, 5], |i| {
                    if (i % 5) as f64 == LABELS[i / 5] {
                        x[0].data[i]
                    } else {
                        0.0
                    }
                })
            },
        )]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("one_hot", &cases());
    }
}
