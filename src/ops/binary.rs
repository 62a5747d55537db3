//! Element-wise functions of two tensors, with broadcasting.
//!
//! Ranks agree and each size is equal or 1, those kept by an operand being neighbours; or an
//! operand has one element. See [`crate::shape::Shape::broadcast_to`].

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::pointwise::Pointwise;
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{greater_than_zero, neg, pointwise, sum_to};
use crate::shape::Shape;

/// y = f(a, b) for every element.
#[derive(Clone, Copy, Debug)]
pub enum Binary {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// The larger of a and b; where equal, the gradient goes to b.
    Maximum,
}

macro_rules! binary_functions {
    ($($(#[$doc:meta])* $name:ident => $variant:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`crate::Error::Shape`] if the shapes do not broadcast.
        pub fn $name(g: &mut Graph, a: TensorId, b: TensorId) -> Result<TensorId> {
            g.add($variant, &[a, b])
        }
    )*};
}

binary_functions! {
    /// a + b.
    add => Binary::Add;
    /// a - b.
    sub => Binary::Sub;
    /// a * b.
    mul => Binary::Mul;
    /// a / b.
    div => Binary::Div;
    /// The larger of a and b.
    maximum => Binary::Maximum;
}

impl Binary {
    fn expression(self) -> &'static str {
        match self {
            Self::Add => "{0} + {1}",
            Self::Sub => "{0} - {1}",
            Self::Mul => "{0} * {1}",
            Self::Div => "{0} / {1}",
            // `max` need not keep a NaN, a sum does.
            Self::Maximum => "select(max({0}, {1}), {0} + {1}, are_nan({0}) | are_nan({1}))",
        }
    }
}

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Maximum => "maximum",
        }
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (a, b) = (inputs[0], inputs[1]);
        a.broadcast_with(b)
            .ok_or_else(|| format!("{a} and {b} do not broadcast"))
    }

    fn gradient(
        &self,
        g: &mut Graph,
        y: TensorId,
        y_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let (a, b) = (g.node(y).inputs[0], g.node(y).inputs[1]);
        let (a_grad, b_grad) = match self {
            Self::Add => (y_grad, y_grad),
            Self::Sub => (y_grad, neg(g, y_grad)?),
            Self::Mul => (mul(g, y_grad, b)?, mul(g, y_grad, a)?),
            Self::Div => {
                let a_grad = div(g, y_grad, b)?;
                let product = mul(g, a_grad, y)?;
                (a_grad, neg(g, product)?)
            }
            Self::Maximum => {
                let difference = sub(g, a, b)?;
                let a_is_larger = greater_than_zero(g, difference)?;
                let a_grad = mul(g, y_grad, a_is_larger)?;
                (a_grad, sub(g, y_grad, a_grad)?)
            }
        };
        let (a_shape, b_shape) = (g.shape(a).clone(), g.shape(b).clone());
        let a_grad = sum_to(g, a_grad, a_shape)?;
        let b_grad = sum_to(g, b_grad, b_shape)?;
        Ok(vec![Some(a_grad), Some(b_grad)])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        pointwise::lower(&Pointwise::expression(self.expression(), 2), ctx)
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(self.expression(), 2))
    }
}
