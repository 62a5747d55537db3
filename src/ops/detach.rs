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
