//! Softmax cross-entropy per row, with label smoothing, and its gradient.
//! Bound: bytes of the logits.

use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`Tensor::softmax_cross_entropy`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxCrossEntropy {
    smoothing: f32,
}

/// The gradient of [`SoftmaxCrossEntropy`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SoftmaxCrossEntropyGrad {
    smoothing: f32,
}

impl Tensor<'_> {
    /// The losses `[N]` of these logits [N, classes] against `labels` `[N]` (class numbers as floats; a row
    /// with a negative label counts zero, one with a label that is no class is NaN). `smoothing` is PyTorch's
    /// `label_smoothing`. Fails if the sizes do not fit.
    #[must_use]
    #[track_caller]
    pub fn softmax_cross_entropy(self, labels: Self, smoothing: f32) -> Self {
        let op = SoftmaxCrossEntropy { smoothing };
        self.graph().add(op, &[self, labels])
    }
}

fn rows_of(logits: &Shape, labels: &Shape) -> Result<usize, String> {
    match (logits.dims(), labels.dims()) {
        (&[rows, classes], &[n]) if n == rows && classes > 0 => Ok(rows),
        _ => Err(format!(
            "logits {logits} and labels {labels} are not [N, classes] and [N]"
        )),
    }
}

fn dispatch(
    logits: &Shape,
    smoothing: f32,
    entry: &'static str,
    bindings: Vec<Slot>,
) -> Result<Lowered> {
    let (rows, classes) = (logits.dims()[0], logits.dims()[1]);
    Ok(Dispatch {
        kernel: Kernel {
            name: "softmax_cross_entropy",
            source: include_str!("../../shaders/softmax_cross_entropy.wgsl").into(),
            entry,
            constants: vec![],
        },
        params: Params::new()
            .with("rows", rows)?
            .with("classes", classes)?
            .with("smoothing", smoothing)?
            .with("nan", f32::NAN)?,
        bindings,
        grid: Grid::Invocations(rows),
    }
    .into())
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok([rows_of(inputs[0], inputs[1])?].into())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let ([logits, labels], smoothing) = (y.inputs(), self.smoothing);
        let grad = SoftmaxCrossEntropyGrad { smoothing };
        vec![Some(y.graph().add(grad, &[logits, labels, y_grad])), None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let bindings = vec![Slot::Input(0), Slot::Input(1), Slot::Output];
        dispatch(ctx.inputs[0], self.smoothing, "forward", bindings)
    }
}

impl Op for SoftmaxCrossEntropyGrad {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy_grad"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        rows_of(inputs[0], inputs[1])?;
        rows_of(inputs[0], inputs[2])?;
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "second derivatives of losses are not implemented";
        y.graph().fail(Error::graph(self.name(), message));
        vec![None; 3]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let bindings = vec![Slot::Input(0), Slot::Input(1), Slot::Input(2), Slot::Output];
        dispatch(ctx.inputs[0], self.smoothing, "backward", bindings)
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, LABELS, case, check, labels, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for smoothing in [0.0, 0.1] {
            cases.push(case(
                &format!("softmax_cross_entropy {smoothing}"),
                &[&[7, 5]],
                move |x| x[0].softmax_cross_entropy(labels(x[0].graph()), smoothing as f32),
                move |x| reference::cross_entropy(&x[0], &LABELS, smoothing),
            ));
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("softmax_cross_entropy", &cases());
    }
}
