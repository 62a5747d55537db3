//! Tensors one after the other along a dimension. Bound: bytes of inputs and output, once each.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Graph, Op, Tensor};
use crate::shape::Shape;

/// Tensors that one dispatch copies.
const AT_ONCE: usize = 4;

/// See [`Graph::concat`].
#[derive(Debug, PartialEq)]
pub struct Concat {
    dim: usize,
}

impl Graph {
    /// The tensors `parts` one after the other along dimension `dim`. Fails if other sizes differ or there are none.
    #[track_caller]
    pub fn concat<'g>(&'g self, parts: &[Tensor<'g>], dim: usize) -> Tensor<'g> {
        self.add(Concat { dim }, parts)
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let first = inputs.first().ok_or("nothing to join")?;
        let mut dims = first.dims().to_vec();
        if self.dim >= dims.len() {
            return Err(format!("{first} has no dimension {}", self.dim));
        }
        dims[self.dim] = 0;
        for shape in inputs {
            let agrees = shape.rank() == first.rank()
                && (0..dims.len()).all(|i| i == self.dim || shape.dims()[i] == first.dims()[i]);
            if !agrees {
                return Err(format!(
                    "{first} and {shape} differ beside dimension {}",
                    self.dim
                ));
            }
            dims[self.dim] += shape.dims()[self.dim];
        }
        Ok(dims.into())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let mut start = 0;
        let mut grads = Vec::new();
        for part in y.all_inputs() {
            let len = part.size(self.dim);
            grads.push(Some(y_grad.slice(self.dim, start, 1, len)));
            start += len;
        }
        grads
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let per_outer = |shape: &Shape| shape.dims()[self.dim..].iter().product::<usize>();
        let whole = per_outer(ctx.output);
        let outer = ctx.output.len() / whole.max(1);
        let mut offset = 0;
        let mut lowered = Lowered::default();
        word(ctx.output.len())?;
        let inputs: Vec<usize> = (0..ctx.inputs.len()).collect();
        for some in inputs.chunks(AT_ONCE) {
            let parts: Vec<usize> = some.iter().map(|&i| per_outer(ctx.inputs[i])).collect();
            let joined: usize = parts.iter().sum();
            // Places, in vectors of four where all of them are.
            let is_vectors = [whole, offset].iter().chain(&parts).all(|at| at % 4 == 0);
            let unit = if is_vectors { 4 } else { 1 };
            let len = outer * joined / unit;
            // What is not there is bound, and not read.
            let (mut bindings, mut lens) = (vec![Slot::Input(some[0]); AT_ONCE], [0; AT_ONCE]);
            for (k, (&i, &part)) in some.iter().zip(&parts).enumerate() {
                bindings[k] = Slot::Input(i);
                lens[k] = part / unit;
            }
            bindings.push(Slot::Output);
            lowered.dispatches.push(Dispatch {
                kernel: Kernel {
                    name: "concat",
                    source: include_str!("../../shaders/concat.wgsl").into(),
                    entry: if is_vectors { "vectors" } else { "elements" },
                    constants: vec![],
                },
                params: Params::new()
                    .with("len", len)?
                    .with("joined", joined / unit)?
                    .with("whole", whole / unit)?
                    .with("offset", offset / unit)?
                    .with("parts", lens)?,
                bindings,
                grid: Grid::Invocations(len),
            });
            offset += joined;
        }
        Ok(lowered)
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::Graph;
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        vec![
            case(
                "concat",
                &[&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]],
                |x| x[0].graph().concat(x, 1),
                |x| reference::Tensor::concat(x, 1),
            ),
            case(
                "concat",
                &[&[1, 7], &[3, 7], &[2, 7], &[1, 7], &[4, 7], &[1, 7]],
                |x| x[0].graph().concat(x, 0),
                |x| reference::Tensor::concat(x, 0),
            ),
            // In vectors of four, and with a fifth and a sixth in a dispatch of their own.
            case(
                "concat",
                &[
                    &[3, 1, 4],
                    &[3, 3, 4],
                    &[3, 2, 4],
                    &[3, 4, 4],
                    &[3, 2, 4],
                    &[3, 1, 4],
                ],
                |x| x[0].graph().concat(x, 1),
                |x| reference::Tensor::concat(x, 1),
            ),
            // Four whose sizes are multiples of four, in rows whose size is not; and four after others whose sizes are not.
            case(
                "concat",
                &[&[3, 4], &[3, 8], &[3, 4], &[3, 4], &[3, 3], &[3, 2]],
                |x| x[0].graph().concat(x, 1),
                |x| reference::Tensor::concat(x, 1),
            ),
            case(
                "concat",
                &[
                    &[3, 1],
                    &[3, 2],
                    &[3, 1],
                    &[3, 2],
                    &[3, 8],
                    &[3, 4],
                    &[3, 4],
                    &[3, 4],
                    &[3, 2],
                ],
                |x| x[0].graph().concat(x, 1),
                |x| reference::Tensor::concat(x, 1),
            ),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("concat", &cases());
    }

    /// A dimension that there is not, others that differ, nothing to join.
    #[test]
    fn what_cannot_be_joined_is_an_error() {
        let joined = |shapes: &[&[usize]], dim| {
            let g = Graph::new();
            let x: Vec<_> = shapes
                .iter()
                .enumerate()
                .map(|(i, &shape)| g.input(&format!("x{i}"), shape))
                .collect();
            g.concat(&x, dim);
            g.check().map_err(|e| e.to_string())
        };
        assert_eq!(joined(&[&[2, 3], &[4, 3]], 0), Ok(()));
        for (shapes, dim) in [
            (&[&[2, 3][..], &[2, 3]][..], 2),
            (&[&[2, 3], &[2, 3]], 3),
            (&[&[2, 3], &[3, 3]], 1),
            (&[&[2, 3], &[2, 3, 1]], 0),
            (&[], 0),
        ] {
            let error = joined(shapes, dim).unwrap_err();
            assert!(error.contains("concat"), "{shapes:?} by {dim}: {error}");
        }
    }
}
