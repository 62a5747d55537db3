//! Sums over all dimensions but one contiguous run: y[m] = scale * sum over (o, i) of x[o, m, i].
//!
//! Covers per-channel sums of NCHW (outer N, mid C, inner HW), column sums (inner 1), row sums
//! (outer 1) and the sum of everything (mid 1). The adjoint of broadcasting.
//! Bound: the bytes of the domain, read once.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::Result;
use crate::graph::op::{Dispatch, Kernel, Lowered, Lowering, Slot, fold_workgroups, word};
use crate::graph::pointwise::Pointwise;
use crate::graph::{Cost, Graph, Op, TensorId};
use crate::ops::pointwise::{Operands, Width, insert_generated};
use crate::ops::{broadcast_to, reshape, scale};
use crate::shape::{Broadcast, Shape};

const SOURCE: &str = include_str!("../../shaders/reduce_sum.wgsl");

/// See [`sum_to`].
#[derive(Debug, Clone)]
pub struct ReduceSum {
    domain: Shape,
    to: Shape,
    scale: f32,
    prologue: Pointwise,
}

/// `factor` times the sum of `x` over the dimensions that `to` has as 1; `to` keeps a contiguous
/// run of the sizes of `x`, or has one element (then of any rank).
///
/// # Errors
/// [`crate::Error::Shape`] if `to` is no such shape.
pub fn reduce_sum(
    g: &mut Graph,
    x: TensorId,
    to: impl Into<Shape>,
    factor: f32,
) -> Result<TensorId> {
    let (domain, to) = (g.shape(x).clone(), to.into());
    if domain.len() == to.len() && domain.broadcast_to(&to).is_some() {
        let x = reshape(g, x, to)?;
        return scale(g, x, factor);
    }
    let op = ReduceSum {
        domain,
        to,
        scale: factor,
        prologue: Pointwise::identity(),
    };
    g.add(op, &[x])
}

/// The sum of `x` down to the shape `to`, see [`reduce_sum`].
///
/// # Errors
/// As [`reduce_sum`].
pub fn sum_to(g: &mut Graph, x: TensorId, to: impl Into<Shape>) -> Result<TensorId> {
    let to = to.into();
    if *g.shape(x) == to {
        return Ok(x);
    }
    reduce_sum(g, x, to, 1.0)
}

/// The mean of `x` down to the shape `to`, see [`reduce_sum`].
///
/// # Errors
/// As [`reduce_sum`].
pub fn mean_to(g: &mut Graph, x: TensorId, to: impl Into<Shape>) -> Result<TensorId> {
    let to = to.into();
    let count = (g.shape(x).len() / to.len().max(1)) as f32;
    reduce_sum(g, x, to, 1.0 / count)
}

/// The domain as [outer, mid, inner] around the run that is kept.
fn extents(to: &Shape, domain: &Shape) -> Option<[usize; 3]> {
    match to.broadcast_to(domain)? {
        Broadcast::Same => Some([1, domain.len(), 1]),
        Broadcast::Scalar => Some([1, 1, domain.len()]),
        Broadcast::Run { inner, len } => Some([domain.len() / (inner * len), len, inner]),
    }
}

impl Op for ReduceSum {
    fn name(&self) -> &'static str {
        "reduce_sum"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs
            .iter()
            .any(|s| s.broadcast_to(&self.domain).is_none())
        {
            return Err(format!("the inputs do not span {}", self.domain));
        }
        match extents(&self.to, &self.domain) {
            Some(_) => Ok(self.to.clone()),
            None => Err(format!("{} does not sum to {}", self.domain, self.to)),
        }
    }

    fn gradient(
        &self,
        g: &mut Graph,
        _node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>> {
        let scaled = scale(g, output_grad, self.scale)?;
        Ok(vec![Some(broadcast_to(g, scaled, self.domain.clone())?)])
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: (self.domain.len() * self.prologue.steps.len()) as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let [outer, mid, inner] = extents(&self.to, &self.domain).unwrap_or([1, 1, 1]);
        let by_columns = inner == 1;
        let vectors = if by_columns { mid % 4 } else { inner % 4 } == 0;
        let (width, lanes) = if vectors {
            (Width::Four, 4)
        } else {
            (Width::One, 1)
        };

        // Summands of one sum, in steps of an invocation, and workgroups without splitting.
        let (steps, groups) = if by_columns {
            (outer, (mid / lanes).div_ceil(64))
        } else {
            (outer * (inner / lanes), mid)
        };
        let wanted = if ctx.variants.direct { 8 } else { 256 };
        let shortest = if by_columns { 64 } else { 512 };
        let splits = (wanted / groups).clamp(1, steps.div_ceil(shortest).max(1));
        let per_split = steps.div_ceil(splits);
        let splits = steps.div_ceil(per_split);

        let operands = Operands::new(ctx.inputs, &self.domain, width, &[])?;
        let mut generated = operands.bindings.clone();
        let _ = writeln!(
            generated,
            "@group(0) @binding({}) var<storage, read_write> parts: array<f32>;",
            operands.slots.len() + 1
        );
        generated.push_str(&operands.value(&self.prologue));
        let mut params = vec![word(outer)?, word(mid)?, word(inner)?, word(splits)?];
        params.extend([word(per_split)?, self.scale.to_bits(), 0, 0]);
        params.extend(operands.maps);
        let target = if splits > 1 {
            Slot::Scratch(0)
        } else {
            Slot::Output
        };
        let mut bindings = operands.slots;
        bindings.push(target);
        let first = Dispatch {
            kernel: Kernel {
                name: "reduce_sum",
                source: Cow::Owned(insert_generated(SOURCE, &generated)),
                entry: if by_columns { "columns" } else { "rows" },
                constants: vec![("WIDTH", lanes as u32)],
            },
            params,
            bindings,
            workgroups: fold_workgroups(groups * splits),
        };
        let mut lowered = Lowered::from(first);
        if splits > 1 {
            lowered.scratch.push(splits * mid);
            lowered.dispatches.push(add_parts(mid, splits)?);
        }
        Ok(lowered)
    }

    fn prologue(&self) -> Option<&Pointwise> {
        Some(&self.prologue)
    }

    fn with_prologue(&self, prologue: Pointwise) -> Option<Arc<dyn Op>> {
        Some(Arc::new(Self {
            prologue,
            ..self.clone()
        }))
    }
}

/// Adds the `splits` parts of `len` sums: itself a sum over columns, of one split.
fn add_parts(len: usize, splits: usize) -> Result<Dispatch> {
    let domain = Shape::from([splits, len]);
    let (width, lanes) = if len.is_multiple_of(4) {
        (Width::Four, 4)
    } else {
        (Width::One, 1)
    };
    let operands = Operands::new(&[&domain], &domain, width, &[])?;
    let mut generated = operands.bindings.clone();
    generated.push_str("@group(0) @binding(2) var<storage, read_write> parts: array<f32>;\n");
    generated.push_str(&operands.value(&Pointwise::identity()));
    let mut params = vec![word(splits)?, word(len)?, 1, 1, word(splits)?];
    params.extend([1f32.to_bits(), 0, 0]);
    params.extend(operands.maps);
    Ok(Dispatch {
        kernel: Kernel {
            name: "reduce_sum",
            source: Cow::Owned(insert_generated(SOURCE, &generated)),
            entry: "columns",
            constants: vec![("WIDTH", lanes)],
        },
        params,
        bindings: vec![Slot::Scratch(0), Slot::Output],
        workgroups: fold_workgroups((len / lanes as usize).div_ceil(64)),
    })
}
