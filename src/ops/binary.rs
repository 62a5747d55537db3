//! Element-wise functions of two tensors, with broadcasting.
//!
//! Ranks agree and each size is equal or 1, those kept by an operand being neighbours; or an
//! operand has one element. See [`crate::shape::Shape::broadcast_to`].

use std::ops::{Add, Div, Mul, Sub};

use crate::graph::pointwise::Pointwise;
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// y = f(a, b) for every element.
#[derive(Clone, Copy, Debug, PartialEq)]
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

impl Add for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn add(self, b: Self) -> Self {
        self.graph().add(Binary::Add, &[self, b])
    }
}

impl Sub for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn sub(self, b: Self) -> Self {
        self.graph().add(Binary::Sub, &[self, b])
    }
}

impl Mul for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn mul(self, b: Self) -> Self {
        self.graph().add(Binary::Mul, &[self, b])
    }
}

impl Div for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn div(self, b: Self) -> Self {
        self.graph().add(Binary::Div, &[self, b])
    }
}

impl Tensor<'_> {
    /// The larger of this and `b`. Fails if the shapes do not broadcast, as the operators do.
    #[must_use]
    #[track_caller]
    pub fn maximum(self, b: Self) -> Self {
        self.graph().add(Binary::Maximum, &[self, b])
    }
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

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [a, b] = y.inputs();
        let (a_grad, b_grad) = match self {
            Self::Add => (y_grad, y_grad),
            Self::Sub => (y_grad, -y_grad),
            Self::Mul => (y_grad * b, y_grad * a),
            Self::Div => {
                let a_grad = y_grad / b;
                (a_grad, -(a_grad * y))
            }
            Self::Maximum => {
                let a_grad = y_grad * (a - b).greater_than_zero();
                (a_grad, y_grad - a_grad)
            }
        };
        let (a_grad, b_grad) = (a_grad.sum_to(a.shape()), b_grad.sum_to(b.shape()));
        vec![Some(a_grad), Some(b_grad)]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(self.expression(), 2))
    }
}
