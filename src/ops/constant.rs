//! The same number everywhere. Fusion turns it into a literal.

use crate::graph::op::{Lowered, Lowering};
use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::pointwise;
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`constant`].
#[derive(Debug)]
pub struct Constant {
    value: f32,
    shape: Shape,
}

/// A tensor of `shape` filled with the finite number `value`.
///
/// # Errors
/// [`Error::Shape`] if `value` is not finite.
pub fn constant(g: &mut Graph, value: f32, shape: impl Into<Shape>) -> Result<TensorId> {
    if !value.is_finite() {
        return Err(Error::graph("constant", format!("{value} is not finite")));
    }
    let shape = shape.into();
    g.add(Constant { value, shape }, &[])
}

impl Op for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn output_shape(&self, _inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(self.shape.clone())
    }

    fn gradient(&self, _: &mut Graph, _: TensorId, _: TensorId) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        pointwise::lower(&Pointwise::expression(literal(self.value), 0), ctx)
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(literal(self.value), 0))
    }
}
