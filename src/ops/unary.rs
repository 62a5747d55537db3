//! Element-wise functions of one tensor: the table of formulas and their derivatives.

use std::ops::{Add, Mul, Neg, Sub};

use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// y = f(x) for every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// max(x, 0); the derivative at 0 is 0, as in PyTorch.
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// exp(x).
    Exp,
    /// ln(x).
    Log,
    /// Square root.
    Sqrt,
    /// 1 / sqrt(x).
    Rsqrt,
    /// 1 / x.
    Recip,
    /// x * x.
    Square,
    /// |x|; the derivative at 0 is 0.
    Abs,
    /// -1, 0 or 1; the derivative is 0.
    Sign,
    /// 1 where x > 0, else 0; the derivative is 0.
    GreaterThanZero,
    /// scale * x + offset.
    Affine {
        /// Factor.
        scale: f32,
        /// Added after.
        offset: f32,
    },
}

/// Functions of every element.
impl Tensor<'_> {
    /// max(x, 0).
    #[must_use]
    #[track_caller]
    pub fn relu(self) -> Self {
        self.apply(Unary::Relu)
    }

    /// 1 / (1 + exp(-x)).
    #[must_use]
    #[track_caller]
    pub fn sigmoid(self) -> Self {
        self.apply(Unary::Sigmoid)
    }

    /// e to the power of x.
    #[must_use]
    #[track_caller]
    pub fn exp(self) -> Self {
        self.apply(Unary::Exp)
    }

    /// Natural logarithm.
    #[must_use]
    #[track_caller]
    pub fn ln(self) -> Self {
        self.apply(Unary::Log)
    }

    /// Square root.
    #[must_use]
    #[track_caller]
    pub fn sqrt(self) -> Self {
        self.apply(Unary::Sqrt)
    }

    /// 1 / sqrt(x).
    #[must_use]
    #[track_caller]
    pub fn rsqrt(self) -> Self {
        self.apply(Unary::Rsqrt)
    }

    /// 1 / x.
    #[must_use]
    #[track_caller]
    pub fn recip(self) -> Self {
        self.apply(Unary::Recip)
    }

    /// x * x.
    #[must_use]
    #[track_caller]
    pub fn square(self) -> Self {
        self.apply(Unary::Square)
    }

    /// |x|.
    #[must_use]
    #[track_caller]
    pub fn abs(self) -> Self {
        self.apply(Unary::Abs)
    }

    /// 1 where x > 0, else 0.
    #[must_use]
    #[track_caller]
    pub fn greater_than_zero(self) -> Self {
        self.apply(Unary::GreaterThanZero)
    }

    /// scale * x + offset, in one node.
    #[must_use]
    #[track_caller]
    pub fn affine(self, scale: f32, offset: f32) -> Self {
        if (scale, offset) == (1.0, 0.0) {
            return self;
        }
        self.apply(Unary::Affine { scale, offset })
    }
}

impl Neg for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn neg(self) -> Self {
        self.affine(-1.0, 0.0)
    }
}

impl Add<f32> for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn add(self, offset: f32) -> Self {
        self.affine(1.0, offset)
    }
}

impl Sub<f32> for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn sub(self, offset: f32) -> Self {
        self.affine(1.0, -offset)
    }
}

impl Mul<f32> for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn mul(self, factor: f32) -> Self {
        self.affine(factor, 0.0)
    }
}

impl<'g> Add<Tensor<'g>> for f32 {
    type Output = Tensor<'g>;

    #[track_caller]
    fn add(self, x: Tensor<'g>) -> Tensor<'g> {
        x.affine(1.0, self)
    }
}

impl<'g> Sub<Tensor<'g>> for f32 {
    type Output = Tensor<'g>;

    #[track_caller]
    fn sub(self, x: Tensor<'g>) -> Tensor<'g> {
        x.affine(-1.0, self)
    }
}

impl<'g> Mul<Tensor<'g>> for f32 {
    type Output = Tensor<'g>;

    #[track_caller]
    fn mul(self, x: Tensor<'g>) -> Tensor<'g> {
        x.affine(self, 0.0)
    }
}

impl Unary {
    fn expression(self) -> String {
        match self {
            // NaN stays NaN, see shaders/shared/nan.wgsl.
            Self::Relu => "select({0}, vec4<f32>(0.0), are_negative({0}))".into(),
            Self::Sigmoid => "vec4<f32>(1.0) / (vec4<f32>(1.0) + exp(-{0}))".into(),
            Self::Exp => "exp({0})".into(),
            Self::Log => "log({0})".into(),
            Self::Sqrt => "sqrt({0})".into(),
            // Not `inverseSqrt`: drivers may give it with 2 ulp and more.
            Self::Rsqrt => "vec4<f32>(1.0) / sqrt({0})".into(),
            Self::Recip => "vec4<f32>(1.0) / {0}".into(),
            Self::Square => "{0} * {0}".into(),
            Self::Abs => "abs({0})".into(),
            Self::Sign => "sign({0})".into(),
            Self::GreaterThanZero => {
                "select(vec4<f32>(0.0), vec4<f32>(1.0), {0} > vec4<f32>(0.0))".into()
            }
            Self::Affine { scale, offset } => match (scale, offset) {
                (-1.0, 0.0) => "-{0}".into(),
                (1.0, _) => format!("{{0}} + {}", literal(offset)),
                (_, 0.0) => format!("{{0}} * {}", literal(scale)),
                _ => format!("{{0}} * {} + {}", literal(scale), literal(offset)),
            },
        }
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sqrt => "sqrt",
            Self::Rsqrt => "rsqrt",
            Self::Recip => "recip",
            Self::Square => "square",
            Self::Abs => "abs",
            Self::Sign => "sign",
            Self::GreaterThanZero => "greater_than_zero",
            Self::Affine { .. } => "affine",
        }
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let [x] = y.inputs();
        let derivative = match *self {
            Self::Relu => y.greater_than_zero(),
            Self::Sigmoid => y * (1.0 - y),
            Self::Exp => y,
            Self::Log => x.recip(),
            Self::Sqrt => 0.5 * y.recip(),
            Self::Rsqrt => -0.5 * (y * x.recip()),
            Self::Recip => -y.square(),
            Self::Square => 2.0 * x,
            Self::Abs => x.apply(Self::Sign),
            Self::Sign | Self::GreaterThanZero => return vec![None],
            Self::Affine { scale, .. } => return vec![Some(scale * y_grad)],
        };
        vec![Some(y_grad * derivative)]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(self.expression(), 1))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        type Unary = for<'g> fn(crate::graph::Tensor<'g>) -> crate::graph::Tensor<'g>;
        type Row = (&'static str, Unary, fn(f64) -> f64, [f64; 2]);
        let table: [Row; 11] = [
            ("relu", |x| x.relu(), |v| v.max(0.0), [-1.0, 1.0]),
            (
                "sigmoid",
                |x| x.sigmoid(),
                |v| 1.0 / (1.0 + (-v).exp()),
                [-6.0, 6.0],
            ),
            ("exp", |x| x.exp(), f64::exp, [-3.0, 3.0]),
            ("log", |x| x.ln(), f64::ln, [0.1, 3.0]),
            ("sqrt", |x| x.sqrt(), f64::sqrt, [0.1, 3.0]),
            ("rsqrt", |x| x.rsqrt(), |v| 1.0 / v.sqrt(), [0.1, 3.0]),
            ("recip", |x| x.recip(), |v| 1.0 / v, [0.3, 3.0]),
            ("square", |x| x.square(), |v| v * v, [-2.0, 2.0]),
            ("abs", |x| x.abs(), f64::abs, [-1.0, 1.0]),
            (
                "greater_than_zero",
                |x| x.greater_than_zero(),
                |v| f64::from(u8::from(v > 0.0)),
                [-1.0, 1.0],
            ),
            ("neg", |x| -x, |v| -v, [-1.0, 1.0]),
        ];
        let mut cases = Vec::new();
        for (name, op, f, [low, high]) in table {
            let one = case(name, &[&[3, 7, 5]], move |x| op(x[0]), move |x| x[0].map(f));
            cases.push(one.range(low, high));
        }
        cases.push(case(
            "affine",
            &[&[67]],
            |x| x[0].affine(-1.5, 0.25),
            |x| x[0].map(|v| -1.5 * v + 0.25),
        ));
        cases.push(case(
            "number + x",
            &[&[5]],
            |x| 0.25 + x[0],
            |x| x[0].map(|v| 0.25 + v),
        ));
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("unary", &cases());
    }
}
