//! The same tensor, through which no gradient flows.

use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::detach`].
#[derive(Debug, PartialEq)]
pub struct Detach;

impl Tensor<'_> {
    /// This as a constant to differentiation (PyTorch's `detach`).
    #[must_use]
    pub fn detach(self) -> Self {
        self.apply(Detach)
    }
}

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn is_view(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::autodiff::gradients_from;
    use crate::graph::Graph;
    use crate::ops::gradients::{Case, case, check, support};

    fn cases() -> Vec<Case> {
        vec![
            case(
                "detach",
                &[&[3, 5]],
                |x| x[0].detach() * x[0],
                |x| x[0].map(|v| v * v),
            )
            // The gradient is x, not 2x: checked in its own test.
            .not_differentiable(),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("detach", &cases());
    }

    #[test]
    fn no_gradient_flows_through_it() {
        let g = Graph::new();
        let x = g.input("x", [3]);
        let y = x.detach() * x;
        let seed = g.constant(1.0, [3]);
        let grads = gradients_from(&[(y, seed)], &[x]);
        g.output("x_grad", grads[0]);
        let outputs = support::run(&g, &[("x", &[1.0, -2.0, 3.0])]).unwrap();
        assert_eq!(outputs["x_grad"], [1.0, -2.0, 3.0]);
    }
}
