//! Sums over all dimensions but one contiguous run: y[m] = scale * sum over (o, i) of x[o, m, i].
//!
//! Covers per-channel sums of NCHW (outer N, mid C, inner HW), column sums (inner 1), row sums
//! (outer 1) and the sum of everything (mid 1). The adjoint of broadcasting.
//! Bound: the bytes of the domain, read once.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::graph::op::{
    Dispatch, Kernel, Lowered, Lowering, Slot, Variants, fold_workgroups, word,
};
use crate::graph::pointwise::{Joint, Pointwise, Source};
use crate::graph::{Cost, Graph, Op, TensorId};
use crate::ops::pointwise::{Operands, Width, insert_generated};
use crate::ops::{broadcast_to, reshape, scale};
use crate::shape::{Broadcast, Shape};
use crate::{Error, Result};

const SOURCE: &str = include_str!("../../shaders/reduce_sum.wgsl");

/// Most steps of a sum that one invocation takes alone, where there are at least `MANY` such sums: a workgroup
/// that shares a sum takes longer to add up its 64 parts, on a CPU adapter a microsecond.
const SHORT: usize = 64;
const SHORT_ON_CPU: usize = 512;
const MANY: usize = 128;

/// Least size of a domain that a CPU adapter sums in parts: a dispatch more costs as much as reading so many
/// numbers.
const WORTH_SPLITTING: usize = 1 << 17;

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
        let inputs: Vec<Source> = (0..ctx.inputs.len()).map(Source::Input).collect();
        let mut summands = Joint::default();
        summands.push(&self.prologue, &inputs);
        self.lower_sums(&summands, ctx.inputs, &[Slot::Output], ctx.variants)
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

impl ReduceSum {
    /// Whether [`ReduceSum::lower_pair`] can compute both.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.domain == other.domain && self.to == other.to && self.scale == other.scale
    }

    /// This sum and `other` in the same dispatches: what both read is read once. `sources` are the
    /// places of their inputs in `inputs`; results are `Slot::Input(inputs.len())` and the next.
    ///
    /// # Errors
    /// As `Op::lower`.
    pub(crate) fn lower_pair(
        &self,
        other: &Self,
        sources: [&[Source]; 2],
        inputs: &[&Shape],
        variants: Variants,
    ) -> Result<Lowered> {
        let mut summands = Joint::default();
        summands.push(&self.prologue, sources[0]);
        summands.push(&other.prologue, sources[1]);
        let outputs = [0, 1].map(|j| Slot::Input(inputs.len() + j));
        self.lower_sums(&summands, inputs, &outputs, variants)
    }

    /// A sum of each of `summands`, one or two, into `outputs`.
    fn lower_sums(
        &self,
        summands: &Joint,
        inputs: &[&Shape],
        outputs: &[Slot],
        variants: Variants,
    ) -> Result<Lowered> {
        let [outer, mid, inner] = extents(&self.to, &self.domain).ok_or_else(|| {
            Error::bug(format!(
                "reduce_sum has no order of axes from {} to {}",
                self.domain, self.to
            ))
        })?;
        let by_columns = inner == 1;
        let vectors = if by_columns { mid % 4 } else { inner % 4 } == 0;
        let (width, lanes) = if vectors {
            (Width::Four, 4)
        } else {
            (Width::One, 1)
        };

        // Summands of one sum, in steps of an invocation, and workgroups without splitting.
        let row_steps = outer * (inner / lanes);
        let short = if variants.direct { SHORT_ON_CPU } else { SHORT };
        let are_short = !by_columns && row_steps <= short && mid >= MANY;
        let (entry, steps, groups) = if by_columns {
            ("columns", outer, (mid / lanes).div_ceil(64))
        } else if are_short {
            ("short_rows", 1, mid.div_ceil(64))
        } else {
            ("rows", row_steps, mid)
        };
        let wanted = if variants.direct { 8 } else { 256 };
        let shortest = if by_columns { 64 } else { 512 };
        let mut splits = (wanted / groups).clamp(1, steps.div_ceil(shortest).max(1));
        let block = steps.div_ceil(splits);
        if variants.direct && self.domain.len() < WORTH_SPLITTING {
            splits = 1;
        }
        let per_split = steps.div_ceil(splits);
        let splits = steps.div_ceil(per_split);

        let operands = Operands::new(inputs, &self.domain, width, &[])?;
        let mut params = vec![word(outer)?, word(mid)?, word(inner)?, word(splits)?];
        params.extend([word(per_split)?, self.scale.to_bits(), word(block)?, 0]);
        params.extend(&operands.maps);
        let parts: Vec<Slot> = (0..outputs.len()).map(Slot::Scratch).collect();
        let targets = if splits > 1 { &parts } else { outputs };
        let first = Dispatch {
            kernel: kernel(&operands, summands, lanes, entry)?,
            params,
            bindings: [&operands.slots, targets].concat(),
            workgroups: fold_workgroups(groups * splits),
        };
        let mut lowered = Lowered::from(first);
        if splits > 1 {
            lowered.scratch = vec![splits * mid; parts.len()];
            lowered
                .dispatches
                .push(add_parts(mid, splits, &parts, outputs)?);
        }
        Ok(lowered)
    }
}

/// The shader with what it sums: `values`, and where the sums go: `put`.
fn kernel(
    operands: &Operands,
    summands: &Joint,
    lanes: usize,
    entry: &'static str,
) -> Result<Kernel> {
    let (body, results) = summands.wgsl();
    let mut generated = operands.bindings.clone();
    let mut puts = String::new();
    for j in 0..results.len() {
        let binding = operands.slots.len() + 1 + j;
        let _ = writeln!(
            generated,
            "@group(0) @binding({binding}) var<storage, read_write> parts{j}: array<f32>;"
        );
        let _ = write!(
            puts,
            "    if (sum == {j}u) {{\n        parts{j}[at] = total;\n    }}\n"
        );
    }
    let zero = "vec4<f32>(0.0)".to_string();
    // One sum has no second summand.
    let [first, second] = [0, 1].map(|j| results.get(j).unwrap_or(&zero));
    let _ = write!(
        generated,
        "\nfn values(i: u32) -> Values {{\n{}{body}    return Values({first}, {second});\n}}\n\n\
         fn put(sum: u32, at: u32, total: f32) {{\n{puts}}}\n",
        operands.loads
    );
    Ok(Kernel {
        name: "reduce_sum",
        source: Cow::Owned(insert_generated(SOURCE, &generated)),
        entry,
        constants: vec![("WIDTH", word(lanes)?), ("SUMS", word(results.len())?)],
    })
}

/// Adds the `splits` parts of `len` sums of each of `parts`: itself a sum over columns, of one split.
fn add_parts(len: usize, splits: usize, parts: &[Slot], outputs: &[Slot]) -> Result<Dispatch> {
    let domain = Shape::from([splits, len]);
    let (width, lanes) = if len.is_multiple_of(4) {
        (Width::Four, 4)
    } else {
        (Width::One, 1)
    };
    let operands = Operands::new(&vec![&domain; parts.len()], &domain, width, &[])?;
    let mut same = Joint::default();
    for j in 0..parts.len() {
        same.push(&Pointwise::identity(), &[Source::Input(j)]);
    }
    let mut params = vec![word(splits)?, word(len)?, 1, 1, word(splits)?];
    params.extend([1f32.to_bits(), word(splits)?, 0]);
    params.extend(&operands.maps);
    Ok(Dispatch {
        kernel: kernel(&operands, &same, lanes, "columns")?,
        params,
        bindings: [parts, outputs].concat(),
        workgroups: fold_workgroups((len / lanes).div_ceil(64)),
    })
}
