//! The same tensor, through which no gradient flows.

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::{Graph, Op, TensorId};
use crate::shape::Shape;

/// See [`detach`].
#[derive(Debug)]
pub struct Detach;

/// `x` as a constant to differentiation (PyTorch's `detach`).
///
/// # Errors
/// None today; the signature is that of every op.
pub fn detach(g: &mut Graph, x: TensorId) -> Result<TensorId> {
    g.add(Detach, &[x])
}

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient(&self, _: &mut Graph, _: TensorId, _: TensorId) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![None])
    }

    fn lower(&self, _ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Lowered::default())
    }

    fn is_view(&self) -> bool {
        true
    }
}
