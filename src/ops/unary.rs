//! Element-wise functions of one tensor: the table of formulas and their derivatives.

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::pointwise::{Pointwise, literal};
use crate::graph::{Graph, Op, TensorId};
use crate::ops::{mul, pointwise};
use crate::shape::Shape;

/// y = f(x) for every element.
#[derive(Clone, Copy, Debug)]
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

macro_rules! unary_functions {
    ($($(#[$doc:meta])* $name:ident => $variant:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// None today; the signature is that of every op.
        pub fn $name(g: &mut Graph, x: TensorId) -> Result<TensorId> {
            g.add($variant, &[x])
        }
    )*};
}

unary_functions! {
    /// max(x, 0).
    relu => Unary::Relu;
    /// 1 / (1 + exp(-x)).
    sigmoid => Unary::Sigmoid;
    /// exp(x).
    exp => Unary::Exp;
    /// ln(x).
    log => Unary::Log;
    /// Square root.
    sqrt => Unary::Sqrt;
    /// 1 / sqrt(x).
    rsqrt => Unary::Rsqrt;
    /// 1 / x.
    recip => Unary::Recip;
    /// x * x.
    square => Unary::Square;
    /// |x|.
    abs => Unary::Abs;
    /// 1 where x > 0, else 0.
    greater_than_zero => Unary::GreaterThanZero;
    /// -x.
    neg => Unary::Affine { scale: -1.0, offset: 0.0 };
}

/// factor * x.
///
/// # Errors
/// None today; the signature is that of every op.
pub fn scale(g: &mut Graph, x: TensorId, factor: f32) -> Result<TensorId> {
    affine(g, x, factor, 0.0)
}

/// factor * x + offset.
///
/// # Errors
/// None today; the signature is that of every op.
pub fn affine(g: &mut Graph, x: TensorId, factor: f32, offset: f32) -> Result<TensorId> {
    if (factor, offset) == (1.0, 0.0) {
        return Ok(x);
    }
    let scale = factor;
    g.add(Unary::Affine { scale, offset }, &[x])
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

    fn gradient(
        &self,
        g: &mut Graph,
        y: TensorId,
        y_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let x = g.node(y).inputs[0];
        let derivative = match *self {
            Self::Relu => greater_than_zero(g, y)?,
            Self::Sigmoid => {
                let complement = affine(g, y, -1.0, 1.0)?;
                mul(g, y, complement)?
            }
            Self::Exp => y,
            Self::Log => recip(g, x)?,
            Self::Sqrt => {
                let inverse = recip(g, y)?;
                scale(g, inverse, 0.5)?
            }
            Self::Rsqrt => {
                let inverse = recip(g, x)?;
                let product = mul(g, y, inverse)?;
                scale(g, product, -0.5)?
            }
            Self::Recip => {
                let squared = square(g, y)?;
                neg(g, squared)?
            }
            Self::Square => scale(g, x, 2.0)?,
            Self::Abs => g.add(Self::Sign, &[x])?,
            Self::Sign | Self::GreaterThanZero => return Ok(vec![None]),
            Self::Affine { scale: factor, .. } => {
                return Ok(vec![Some(scale(g, y_grad, factor)?)]);
            }
        };
        Ok(vec![Some(mul(g, y_grad, derivative)?)])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        pointwise::lower(&Pointwise::expression(self.expression(), 1), ctx)
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::expression(self.expression(), 1))
    }
}
