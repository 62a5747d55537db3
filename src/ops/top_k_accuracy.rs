//! Which rows have their label among the k largest logits. Bound: bytes of the logits.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::top_k_accuracy`].
#[derive(Debug, PartialEq)]
struct TopKAccuracy {
    k: usize,
}

impl Tensor<'_> {
    /// 1 or 0 for every row of these logits [N, classes] and `labels` `[N]`; the mean is the top-k accuracy.
    /// No gradient. Fails if the sizes do not fit.
    #[must_use]
    #[track_caller]
    pub fn top_k_accuracy(self, labels: Self, k: usize) -> Self {
        self.graph().add(TopKAccuracy { k }, &[self, labels])
    }
}

impl Op for TopKAccuracy {
    fn name(&self) -> &'static str {
        "top_k_accuracy"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match (inputs[0].dims(), inputs[1].dims()) {
            (&[rows, _], &[n]) if n == rows => Ok([rows].into()),
            _ => Err(format!(
                "{} and {} are not [N, classes] and [N]",
                inputs[0], inputs[1]
            )),
        }
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None, None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let (rows, classes) = (ctx.inputs[0].dims()[0], ctx.inputs[0].dims()[1]);
        Ok(Dispatch {
            kernel: Kernel {
                name: "top_k_accuracy",
                source: include_str!("../../shaders/top_k_accuracy.wgsl").into(),
                entry: "main",
                constants: vec![],
            },
            params: Params::new()
                .with("rows", rows)?
                .with("classes", classes)?
                .with("k", self.k)?,
            bindings: vec![Slot::Input(0), Slot::Input(1), Slot::Output],
            grid: Grid::Invocations(rows),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, LABELS, case, check, labels, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for k in [1, 3] {
            cases.push(
                case(
                    &format!("top_k_accuracy {k}"),
                    &[&[7, 5]],
                    move |x| x[0].top_k_accuracy(labels(x[0].graph()), k),
                    move |x| {
                        reference::Tensor::from_fn(&[7], |r| {
                            let row = &x[0].data[r * 5..(r + 1) * 5];
                            let Some(label) = (0..5).find(|&c| c as f64 == LABELS[r]) else {
                                return 0.0;
                            };
                            let own = row[label];
                            f64::from(u8::from(row.iter().filter(|&&v| v > own).count() < k))
                        })
                    },
                )
                .not_differentiable(),
            );
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("top_k_accuracy", &cases());
    }
}
