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

#[cfg(test)]
mod tests {
    use crate::graph::{Init, Role};
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for (shape, bins) in [([7, 11], 5), ([3, 20_001], 301)] {
            cases.push(case(
                &format!("histogram {shape:?}"),
                &[&shape],
                move |x| x[0].histogram(bins, [-0.5, 0.7]),
                move |x| {
                    let mut shares = vec![0.0; bins];
                    for &value in &x[0].data {
                        // In float32, as the edges of bins are.
                        let value = value as f32;
                        if (-0.5..=0.7).contains(&value) {
                            let bin = (value + 0.5) * (bins as f32 / 1.2);
                            shares[(bin as usize).min(bins - 1)] += 1.0 / x[0].data.len() as f64;
                        }
                    }
                    reference::Tensor::new(&[bins], shares)
                },
            ));
        }
        // On both ends of the range, beyond them, and on edges of bins.
        let places = [
            -9.0, -8.0, -8.0, -7.5, -4.0, 0.0, 4.0, 7.9, 8.0, 8.0, 8.0, 8.5_f32,
        ];
        cases.push(case(
            "histogram of edges",
            &[&[places.len()]],
            move |x| {
                let values = Init::Values(places.to_vec().into());
                let known = x[0]
                    .graph()
                    .state("edges", [places.len()], Role::Scratch, values);
                (known + x[0] * 0.0).histogram(4, [-8.0, 8.0])
            },
            // 8, the last bin's upper end, is in it; what is beyond is in none.
            |_| reference::Tensor::new(&[4], [3.0, 1.0, 1.0, 5.0].map(|n| n / 12.0).to_vec()),
        ));
        cases.into_iter().map(Case::not_differentiable).collect()
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("histogram", &cases());
    }
}
