//! Multiply-adds without memory: what the adapter can do at all, as the measure of what is done
//! with it.

use crate::Result;
use crate::graph::op::{Cost, Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// Chains of multiply-adds in registers, long enough to hide their latency.
const SOURCE: &str = "
#import grid
const STEPS: u32 = 1u;

struct Params { len: u32, _0: u32, _1: u32, _2: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.len) {
        return;
    }
    let m = vec4(x[i]);
    // Twelve different starts: a compiler that finds two alike computes one.
    var a = vec4<f32>(0.0, 1.0, 2.0, 3.0);
    var b = a + 4.0;
    var c = a + 8.0;
    for (var step = 0u; step < STEPS; step++) {
        a = fma(a, m, m);
        b = fma(b, m, m);
        c = fma(c, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        c = fma(c, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        c = fma(c, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        c = fma(c, m, m);
    }
    let sum = a + b + c;
    y[i] = sum.x + sum.y + sum.z + sum.w;
}
";
const STEPS: u32 = 256;

#[derive(Debug, PartialEq)]
struct MultiplyAdd;

/// One number for each of `x`, after 3072 multiply-adds of four lanes that touch no memory.
pub(super) fn multiply_add(x: Tensor<'_>) -> Tensor<'_> {
    x.apply(MultiplyAdd)
}

impl Op for MultiplyAdd {
    fn name(&self) -> &'static str {
        "multiply_add"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None]
    }

    fn cost(&self, _: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: output.len() as u64 * u64::from(STEPS) * 12 * 4 * 2,
            bytes: 2 * output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        Ok(Dispatch {
            kernel: Kernel {
                name: "multiply_add",
                source: SOURCE.into(),
                entry: "main",
                constants: vec![("STEPS", STEPS)],
            },
            params: Params::new().with("len", ctx.output.len())?,
            bindings: vec![Slot::Input(0), Slot::Output],
            grid: Grid::Invocations(ctx.output.len()),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_operations_are_those_of_its_source() {
        let in_loop = SOURCE.matches("= fma(").count() as u64;
        let shape = Shape::from([100]);
        // A multiplication and an addition in each of four lanes.
        let each = u64::from(STEPS) * in_loop * 4 * 2;
        assert_eq!(MultiplyAdd.cost(&[], &shape).flops, 100 * each);
    }
}
