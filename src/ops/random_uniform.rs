//! Random numbers that depend on a counter alone: the same seed and step give the same ones.
//! Bound: bytes of the result.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::random_uniform`].
#[derive(Debug, PartialEq)]
pub struct RandomUniform {
    shape: Shape,
}

impl Tensor<'_> {
    /// Numbers in [0, 1) of `shape`, hashed from the bits of this counter, `[1]`, and their index. No gradient. Fails if
    /// it is not `[1]`.
    #[must_use]
    #[track_caller]
    pub fn random_uniform(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.apply(RandomUniform { shape })
    }
}

impl Op for RandomUniform {
    fn name(&self) -> &'static str {
        "random_uniform"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match inputs[0].dims() {
            [1] => Ok(self.shape.clone()),
            _ => Err(format!("the counter {} is not [1]", inputs[0])),
        }
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let len = ctx.output.len();
        Ok(Dispatch {
            kernel: Kernel {
                name: "random_uniform",
                source: include_str!("../../shaders/random_uniform.wgsl").into(),
                entry: "main",
                constants: vec![],
            },
            params: Params::new().with("len", len)?,
            bindings: vec![Slot::Input(0), Slot::Output],
            grid: Grid::Invocations(len),
        }
        .into())
    }
}
