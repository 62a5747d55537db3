//! Values by their place in ascending order: least, largest, quantiles. Bound: bytes of x, four times.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Cost, Op, Tensor};
use crate::shape::Shape;

/// Values that one workgroup counts in a round, at least.
const PER_PART: usize = 1 << 13;

/// See [`Tensor::kth_value`].
#[derive(Debug, PartialEq)]
pub struct KthValue {
    places: Vec<usize>,
}

impl Tensor<'_> {
    /// Of each row of this [rows, n], the values that stand at `places` (from 0, at most four of them) when
    /// the row is sorted in ascending order, exactly: [rows, places]. NaN stand at the ends. No gradient.
    ///
    /// Fails if it has not two dimensions or a place is past the end of a row.
    #[must_use]
    #[track_caller]
    pub fn kth_value(self, places: &[usize]) -> Self {
        let places = places.to_vec();
        self.apply(KthValue { places })
    }
}

impl Op for KthValue {
    fn name(&self) -> &'static str {
        "kth_value"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (places, count) = (&self.places, self.places.len());
        match *inputs[0].dims() {
            [rows, n] if (1..=4).contains(&count) && places.iter().all(|&k| k < n) => {
                Ok([rows, count].into())
            }
            [_, n] => Err(format!(
                "places {places:?} are not one to four within rows of {n}"
            )),
            _ => Err(format!("{} is not [rows, n]", inputs[0])),
        }
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        let reads = 4 * self.places.len() as u64;
        Cost {
            flops: 0,
            bytes: reads * inputs[0].size_bytes() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let (len, tasks) = (ctx.inputs[0].dims()[1], ctx.output.len());
        let parts = len.div_ceil(PER_PART).clamp(1, 256);
        word(ctx.inputs[0].len())?;
        word(tasks * parts * 256)?;
        let places: [usize; 4] = std::array::from_fn(|i| self.places.get(i).copied().unwrap_or(0));
        let mut dispatches = Vec::new();
        for round in 0..4 {
            for (entry, values, workgroups) in [
                ("count", Slot::Input(0), tasks * parts),
                ("pick", Slot::Output, tasks),
            ] {
                dispatches.push(Dispatch {
                    kernel: Kernel {
                        name: "kth_value",
                        source: include_str!("../../shaders/kth_value.wgsl").into(),
                        entry,
                        constants: vec![],
                    },
                    params: Params::new()
                        .with("tasks", tasks)?
                        .with("len", len)?
                        .with("count", self.places.len())?
                        .with("round", round)?
                        .with("places", places)?
                        .with("parts", parts)?
                        .with("per_part", len.div_ceil(parts))?,
                    bindings: vec![Slot::Scratch(0), Slot::Scratch(1), values],
                    grid: Grid::Workgroups(workgroups),
                });
            }
        }
        Ok(Lowered {
            dispatches,
            scratch: vec![tasks * parts * 256, tasks * 2],
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        // 20 001 values are counted by several workgroups; many of 70 are equal.
        for (shape, places) in [([3, 70], &[0, 35, 69, 1][..]), ([1, 20_001], &[0, 19_980])] {
            cases.push(case(
                &format!("kth_value {shape:?}"),
                &[&shape],
                move |x| (x[0] * 4.0).kth_value(places),
                move |x| {
                    let rows = x[0].data.chunks(shape[1]);
                    let of = rows.flat_map(|row| {
                        let mut sorted: Vec<f64> = row.iter().map(|v| 4.0 * v).collect();
                        sorted.sort_by(f64::total_cmp);
                        places.iter().map(move |&k| sorted[k]).collect::<Vec<f64>>()
                    });
                    reference::Tensor::new(&[shape[0], places.len()], of.collect())
                },
            ));
        }
        cases.into_iter().map(Case::not_differentiable).collect()
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("kth_value", &cases());
    }
}
