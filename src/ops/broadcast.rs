//! One tensor repeated along dimensions of size 1: the adjoint of [`Tensor::sum_to`].

use crate::graph::pointwise::Pointwise;
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::broadcast_to`].
#[derive(Debug, PartialEq)]
pub struct BroadcastTo {
    shape: Shape,
}

impl Tensor<'_> {
    /// This repeated to `shape`: sizes equal or 1, those kept being neighbours; or it has one element. Fails if it cannot be.
    #[must_use]
    #[track_caller]
    pub fn broadcast_to(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if self.shape() == shape {
            return self;
        }
        self.apply(BroadcastTo { shape })
    }
}

impl Op for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match inputs[0].broadcast_to(&self.shape) {
            Some(_) => Ok(self.shape.clone()),
            None => Err(format!("{} does not repeat to {}", inputs[0], self.shape)),
        }
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [x] = y.inputs();
        vec![Some(y_grad.sum_to(x.shape()))]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::identity())
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for (from, to) in [
            (&[1, 3, 1, 1], &[2, 3, 5, 7]),
            (&[1, 1, 1, 1], &[2, 3, 1, 5]),
        ] {
            cases.push(case(
                &format!("broadcast {from:?} {to:?}"),
                &[from],
                move |x| x[0].broadcast_to(*to),
                move |x| x[0].broadcast(to),
            ));
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("broadcast", &cases());
    }
}
