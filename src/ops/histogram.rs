//! How values are distributed. Bound: bytes of x.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// Values that one workgroup counts at most, up to 1 024 workgroups.
const PER_PART: usize = 1 << 14;

/// Counts of parts of the values, [parts, bins]. See [`Tensor::histogram`].
#[derive(Debug, PartialEq)]
pub struct Histogram {
    bins: usize,
    range: [f32; 2],
}

impl Tensor<'_> {
    /// The shares of all values that lie in each of `bins` equal parts of `range`, `[bins]`. The last
    /// part has its upper end; values outside of all count in none (as in `torch.histc`). No gradient.
    ///
    /// Fails for a range that is none, or bins that are none or more than 4 096.
    #[must_use]
    #[track_caller]
    pub fn histogram(self, bins: usize, range: [f32; 2]) -> Self {
        let parts = self.apply(Histogram { bins, range });
        let share = 1.0 / self.len().max(1) as f32;
        parts.reduce_sum([1, bins], share).reshape([bins])
    }
}

impl Op for Histogram {
    fn name(&self) -> &'static str {
        "histogram"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [low, high] = self.range;
        // 16 KiB of workgroup memory.
        let is_range = low < high && (high - low).is_finite();
        if !(1..=4096).contains(&self.bins) || !is_range {
            return Err(format!("{} bins over {low} to {high}", self.bins));
        }
        let parts = inputs[0].len().div_ceil(PER_PART).clamp(1, 1024);
        Ok([parts, self.bins].into())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let (len, parts) = (ctx.inputs[0].len(), ctx.output.dims()[0]);
        let [low, high] = self.range;
        Ok(Dispatch {
            kernel: Kernel {
                name: "histogram",
                source: include_str!("../../shaders/histogram.wgsl").into(),
                entry: "main",
                constants: vec![("BINS", word(self.bins)?)],
            },
            params: Params::new()
                .with("len", len)?
                .with("parts", parts)?
                .with("per_part", len.div_ceil(parts))?
                .with("low", low)?
                .with("high", high)?,
            bindings: vec![Slot::Input(0), Slot::Output],
            grid: Grid::Workgroups(parts),
        }
        .into())
    }
}
