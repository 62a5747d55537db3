//! Labels as rows of zeros with a one. Bound: bytes of the result.

use crate::Result;
use crate::graph::op::{Dispatch, Kernel, Lowered, Lowering, Slot, fold_workgroups, word};
use crate::graph::{Graph, Op, TensorId};
use crate::shape::Shape;

/// See [`one_hot`].
#[derive(Debug)]
pub struct OneHot {
    classes: usize,
}

/// `labels` `[N]` (class numbers as floats) as [N, classes]; a negative label gives zeros, one that is no class NaN.
/// No gradient.
///
/// # Errors
/// [`crate::Error::Shape`] if `labels` is not `[N]`.
pub fn one_hot(g: &mut Graph, labels: TensorId, classes: usize) -> Result<TensorId> {
    g.add(OneHot { classes }, &[labels])
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match *inputs[0].dims() {
            [rows] => Ok([rows, self.classes].into()),
            _ => Err(format!("labels {} are not [N]", inputs[0])),
        }
    }

    fn gradient(&self, _: &mut Graph, _: TensorId, _: TensorId) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![None])
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        word(ctx.output.len())?;
        Ok(Dispatch {
            kernel: Kernel {
                name: "one_hot",
                source: include_str!("../../shaders/one_hot.wgsl").into(),
                entry: "main",
                constants: vec![],
            },
            params: vec![
                word(ctx.inputs[0].len())?,
                word(self.classes)?,
                f32::NAN.to_bits(),
                0,
            ],
            bindings: vec![Slot::Input(0), Slot::Output],
            workgroups: fold_workgroups(ctx.output.len().div_ceil(64)),
        }
        .into())
    }
}
