//! The same number everywhere. Fusion turns it into a literal.

use crate::Error;
use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Graph, Op, Tensor};
use crate::shape::Shape;

/// See [`Graph::constant`].
#[derive(Debug, PartialEq)]
pub struct Constant {
    value: f32,
    shape: Shape,
}

impl Graph {
    /// A tensor of `shape` filled with the finite number `value`. Fails if it is not finite.
    #[track_caller]
    pub fn constant(&self, value: f32, shape: impl Into<Shape>) -> Tensor<'_> {
        if !value.is_finite() {
            self.fail(Error::graph("constant", format!("{value} is not finite")));
        }
        let shape = shape.into();
        self.add(Constant { value, shape }, &[])
    }
}

impl Op for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn output_shape(&self, _inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(self.shape.clone())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(literal(self.value), 0))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        vec![case(
            "constant",
            &[&[3, 5]],
            |x| x[0].graph().constant(0.75, [3, 5]) * x[0],
            |x| x[0].map(|v| 0.75 * v),
        )]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("constant", &cases());
    }
}
