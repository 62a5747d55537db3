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

#[cfg(test)]
mod tests {
    use crate::graph::{Init, Role};
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        vec![
            // Scaled by a tensor, as dropout does; 70 is no multiple of a workgroup.
            case(
                "random_uniform",
                &[&[7, 10]],
                |x| {
                    let init = Init::Values(vec![-1234.5].into());
                    let counter = x[0].graph().state("counter", [1], Role::Optimizer, init);
                    counter.random_uniform([7, 10]) * x[0]
                },
                |x| {
                    let key = reference::pcg((-1234.5f32).to_bits());
                    reference::Tensor::from_fn(&[7, 10], |i| {
                        let hash = reference::pcg((i as u32).wrapping_add(key));
                        f64::from(hash >> 8) / f64::from(1 << 24) * x[0].data[i]
                    })
                },
            ),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("random_uniform", &cases());
    }
}
