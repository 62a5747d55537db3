//! Sums over all dimensions but one contiguous run: y[m] = scale * sum over (o, i) of x[o, m, i].
//!
//! Covers per-channel sums of NCHW (outer N, mid C, inner HW), column sums (inner 1), row sums
//! (outer 1) and the sum of everything (mid 1). The adjoint of broadcasting.
//! Bound: the bytes of the domain, read once.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, Variants, word};
use crate::graph::pointwise::{Joint, Pointwise, Source};
use crate::graph::{Cost, Op, Tensor};
use crate::ops::pointwise::{Operands, Width, insert_generated};
use crate::shape::{Broadcast, Shape};
use crate::{Error, Result};

const SOURCE: &str = include_str!("../../shaders/reduce_sum.wgsl");

/// Most steps of a sum that one invocation takes alone, where there are at least `MANY` such sums: a workgroup
/// that shares a sum takes longer to add up its 64 parts, on a CPU adapter a microsecond.
const SHORT: usize = 64;
const SHORT_ON_CPU: usize = 512;
const MANY: usize = 128;

/// Invocations of a workgroup: how a sum is divided depends on it.
const WORKGROUP: usize = 64;

/// Least size of a domain that a CPU adapter sums in parts: a dispatch more costs as much as reading so many
/// numbers.
const WORTH_SPLITTING: usize = 1 << 17;

/// See [`Tensor::reduce_sum`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceSum {
    domain: Shape,
    to: Shape,
    scale: f32,
    prologue: Pointwise,
}

impl Tensor<'_> {
    /// `factor` times the sum over the dimensions that `to` has as 1; `to` keeps a contiguous
    /// run of the sizes, or has one element (then of any rank). Fails if it is no such shape.
    #[must_use]
    #[track_caller]
    pub fn reduce_sum(self, to: impl Into<Shape>, factor: f32) -> Self {
        let (domain, to) = (self.shape(), to.into());
        if domain.len() == to.len() && domain.broadcast_to(&to).is_some() {
            return self.reshape(to) * factor;
        }
        self.apply(ReduceSum {
            domain,
            to,
            scale: factor,
            prologue: Pointwise::identity(),
        })
    }

    /// The sum down to the shape `to`, see [`Tensor::reduce_sum`].
    #[must_use]
    #[track_caller]
    pub fn sum_to(self, to: impl Into<Shape>) -> Self {
        let to = to.into();
        if self.shape() == to {
            return self;
        }
        self.reduce_sum(to, 1.0)
    }

    /// The mean down to the shape `to`, see [`Tensor::reduce_sum`].
    #[must_use]
    #[track_caller]
    pub fn mean_to(self, to: impl Into<Shape>) -> Self {
        let to = to.into();
        let count = (self.len() / to.len().max(1)) as f32;
        self.reduce_sum(to, 1.0 / count)
    }

    /// The sum of each row of this [rows, columns], `[rows]`.
    #[must_use]
    #[track_caller]
    pub fn sum_rows(self) -> Self {
        let [rows, _] = self.dims();
        self.sum_to([rows, 1]).reshape([rows])
    }
}

/// The domain as [outer, mid, inner] around the run that is kept.
fn extents(to: &Shape, domain: &Shape) -> Option<[usize; 3]> {
    match to.broadcast_to(domain)? {
        Broadcast::Same => Some([1, domain.len(), 1]),
        Broadcast::Scalar => Some([1, 1, domain.len()]),
        Broadcast::Run { inner, len } => Some([domain.len() / (inner * len).max(1), len, inner]),
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

    fn gradient<'g>(&self, _: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let scaled = y_grad * self.scale;
        vec![Some(scaled.broadcast_to(self.domain.clone()))]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: (self.domain.len() * self.prologue.instructions.len()) as u64,
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
        let short = if variants.are_direct() {
            SHORT_ON_CPU
        } else {
            SHORT
        };
        let are_short = !by_columns && row_steps <= short && mid >= MANY;
        let (entry, steps, groups) = if by_columns {
            ("columns", outer, (mid / lanes).div_ceil(WORKGROUP))
        } else if are_short {
            ("short_rows", 1, mid.div_ceil(WORKGROUP))
        } else {
            ("rows", row_steps, mid)
        };
        let wanted = if variants.are_direct() { 8 } else { 256 };
        let shortest = if by_columns { 64 } else { 512 };
        let mut splits = (wanted / groups).clamp(1, steps.div_ceil(shortest).max(1));
        let block = steps.div_ceil(splits);
        if variants.are_direct() && self.domain.len() < WORTH_SPLITTING {
            splits = 1;
        }
        let per_split = steps.div_ceil(splits);
        let splits = steps.div_ceil(per_split);

        let operands = Operands::new(inputs, &self.domain, width, &[])?;
        let parts: Vec<Slot> = (0..outputs.len()).map(Slot::Scratch).collect();
        let targets = if splits > 1 { &parts } else { outputs };
        let first = Dispatch {
            kernel: kernel(&operands, summands, lanes, entry)?,
            params: Params::new()
                .with("outer", outer)?
                .with("mid", mid)?
                .with("inner", inner)?
                .with("splits", splits)?
                .with("per_split", per_split)?
                .with("scale", self.scale)?
                .with("block", block)?
                .with("maps", operands.maps)?,
            bindings: [&operands.slots, targets].concat(),
            grid: Grid::Workgroups(groups * splits),
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
        constants: vec![
            ("WORKGROUP", word(WORKGROUP)?),
            ("WIDTH", word(lanes)?),
            ("SUMS", word(results.len())?),
        ],
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
    Ok(Dispatch {
        kernel: kernel(&operands, &same, lanes, "columns")?,
        params: Params::new()
            .with("outer", splits)?
            .with("mid", len)?
            .with("inner", 1)?
            .with("splits", 1)?
            .with("per_split", splits)?
            .with("scale", 1.0)?
            .with("block", splits)?
            .with("maps", operands.maps)?,
        bindings: [parts, outputs].concat(),
        grid: Grid::Invocations(len / lanes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::pointwise::Argument;
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        let table: [(&[usize], &[usize]); 13] = [
            (&[3, 5, 7, 9], &[1, 5, 1, 1]),
            (&[3, 5, 4, 8], &[1, 5, 1, 1]),
            (&[37, 13], &[1, 13]),
            (&[1201, 12], &[1, 12]),
            (&[13, 37], &[13, 1]),
            (&[3, 131, 5], &[1, 131, 1]),
            (&[2, 130, 4], &[1, 130, 1]),
            (&[5, 40], &[5, 1]),
            (&[3, 4, 5], &[3, 4, 1]),
            (&[9001], &[1]),
            (&[2, 31, 67], &[1]),
            // Large enough that a CPU adapter sums in parts, too.
            (&[5, 40_001], &[5, 1]),
            (&[40_001, 6], &[1, 6]),
        ];
        let mut cases = Vec::new();
        for (from, to) in table {
            let (target, to) = (to.to_vec(), to.to_vec());
            cases.push(
                case(
                    &format!("reduce_sum {from:?} {to:?}"),
                    &[from],
                    move |x| x[0].reduce_sum(to.clone(), 0.5),
                    move |x| x[0].sum_to(&target).map(|v| 0.5 * v),
                )
                .tolerance(3e-5),
            );
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("reduce_sum", &cases());
    }

    fn sum(to: [usize; 3], scale: f32, prologue: Pointwise) -> ReduceSum {
        ReduceSum {
            domain: [2, 3, 4].into(),
            to: to.into(),
            scale,
            prologue,
        }
    }

    /// Each number costs what is computed of it before it is added.
    #[test]
    fn a_sum_costs_its_summands() {
        let x = Shape::from([2, 3, 4]);
        let square = Pointwise::expression("{0} * {0}", 1);
        let less = Pointwise::expression("{0} - {1}", 2);
        let both = square.substitute(&[Argument::Inline(&less, vec![0, 1])], 2);
        for (prologue, steps) in [(square, 1), (both, 2)] {
            let sum = sum([1, 3, 1], 1.0, prologue);
            let cost = sum.cost(&[&x, &x], &[1, 3, 1].into());
            assert_eq!((cost.flops, cost.bytes), (24 * steps, 2 * 96 + 12));
        }
    }

    #[test]
    fn sums_of_one_kernel_have_one_result_and_one_factor() {
        let one = |to, scale| sum(to, scale, Pointwise::identity());
        let first = one([1, 3, 1], 0.5);
        // Of other numbers, as their prologues say.
        let other = sum([1, 3, 1], 0.5, Pointwise::expression("{0} * {0}", 1));
        assert!(first.is_like(&other));
        assert!(!first.is_like(&one([1, 3, 1], 1.0)));
        assert!(!first.is_like(&one([1, 1, 4], 0.5)));
        let domain = Shape::from([4, 3, 2]);
        assert!(!first.is_like(&ReduceSum { domain, ..other }));
    }
}
