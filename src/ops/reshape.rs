//! The same elements in the same order under another shape. Moves nothing.

use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::reshape`].
#[derive(Debug, PartialEq)]
pub struct Reshape {
    shape: Shape,
}

impl Tensor<'_> {
    /// This seen as `shape`. Fails if it has another number of elements.
    #[must_use]
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if self.shape() == shape {
            return self;
        }
        self.apply(Reshape { shape })
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs[0].len() == self.shape.len() {
            Ok(self.shape.clone())
        } else {
            let (from, to) = (inputs[0].len(), self.shape.len());
            Err(format!("{from} elements do not make {} ({to})", self.shape))
        }
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [x] = y.inputs();
        vec![Some(y_grad.reshape(x.shape()))]
    }

    fn is_view(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        vec![case(
            "reshape",
            &[&[2, 3, 5]],
            |x| x[0].reshape([6, 5]),
            |x| x[0].reshape(&[6, 5]),
        )]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("reshape", &cases());
    }
}
