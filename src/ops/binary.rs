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

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        type Binary = for<'g> fn(
            crate::graph::Tensor<'g>,
            crate::graph::Tensor<'g>,
        ) -> crate::graph::Tensor<'g>;
        type Row = (&'static str, Binary, fn(f64, f64) -> f64);
        let table: [Row; 5] = [
            ("add", |a, b| a + b, |a, b| a + b),
            ("sub", |a, b| a - b, |a, b| a - b),
            ("mul", |a, b| a * b, |a, b| a * b),
            ("div", |a, b| a / b, |a, b| a / b),
            ("maximum", |a, b| a.maximum(b), f64::max),
        ];
        let shapes: [[&[usize]; 2]; 6] = [
            [&[3, 5, 7], &[3, 5, 7]],
            [&[2, 3, 5, 7], &[1, 3, 1, 1]],
            [&[5, 8], &[1, 8]],
            [&[5, 7], &[5, 1]],
            [&[2, 3, 4, 8], &[1]],
            [&[1, 3], &[9, 1]],
        ];
        let mut cases = Vec::new();
        for (name, op, f) in table {
            for [a, b] in shapes {
                let name = format!("{name} {a:?} {b:?}");
                let one = case(
                    &name,
                    &[a, b],
                    move |x| op(x[0], x[1]),
                    move |x| x[0].zip(&x[1], f),
                );
                cases.push(one.range(0.5, 2.0));
            }
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("binary", &cases());
    }
}
