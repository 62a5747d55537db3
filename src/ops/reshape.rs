//! The same elements in the same order under another shape. Moves nothing.

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::{Graph, Op, TensorId};
use crate::shape::Shape;

/// See [`reshape`].
#[derive(Debug)]
pub struct Reshape {
    shape: Shape,
}

/// `x` seen as `shape`, which must have as many elements.
///
/// # Errors
/// [`crate::Error::Shape`] if the numbers of elements differ.
pub fn reshape(g: &mut Graph, x: TensorId, shape: impl Into<Shape>) -> Result<TensorId> {
    let shape = shape.into();
    if *g.shape(x) == shape {
        return Ok(x);
    }
    g.add(Reshape { shape }, &[x])
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

    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let shape = g.shape(g.node(node).inputs[0]).clone();
        Ok(vec![Some(reshape(g, output_grad, shape)?)])
    }

    fn lower(&self, _ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Lowered::default())
    }

    fn is_view(&self) -> bool {
        true
    }
}
