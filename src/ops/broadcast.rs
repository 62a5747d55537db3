//! One tensor repeated along dimensions of size 1: the adjoint of [`crate::ops::sum_to`].

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::pointwise::Pointwise;
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{pointwise, sum_to};
use crate::shape::Shape;

/// See [`broadcast_to`].
#[derive(Debug)]
pub struct BroadcastTo {
    shape: Shape,
}

/// `x` repeated to `shape`: sizes equal or 1, those kept being neighbours; or `x` has one element.
///
/// # Errors
/// [`crate::Error::Shape`] if it cannot be.
pub fn broadcast_to(g: &mut Graph, x: TensorId, shape: impl Into<Shape>) -> Result<TensorId> {
    let shape = shape.into();
    if *g.shape(x) == shape {
        return Ok(x);
    }
    g.add(BroadcastTo { shape }, &[x])
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

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let shape = g.shape(g.node(node).inputs[0]).clone();
        Ok(vec![Some(sum_to(g, output_grad, shape)?)])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        pointwise::lower(&Pointwise::identity(), ctx)
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::identity())
    }
}
