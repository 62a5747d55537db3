// A copy under an affine index map in each of four dimensions: transposes, slices, zero padding,
// zero insertion, flips, and the adjoints of all of these. Each invocation writes one element:
// the source element at (c * mul + add) / div in every dimension, or zero where that is no
// element of the source.

#import grid

// Divisors as constants: compilers make multiplications of them. Sizes of the last three
// dimensions, and the divisors of the map.
const SIZE_1: u32 = 1u;
const SIZE_2: u32 = 1u;
const SIZE_3: u32 = 1u;
const DIV_0: u32 = 1u;
const DIV_1: u32 = 1u;
const DIV_2: u32 = 1u;
const DIV_3: u32 = 1u;

struct Params {
    shape: vec4<u32>,
    mul: vec4<i32>,
    add: vec4<i32>,
    source_shape: vec4<i32>,
    source_strides: vec4<i32>,
}

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
    let s = params.shape;
    if (i >= s.x * s.y * s.z * s.w) {
        return;
    }
    let i_2 = i / SIZE_3;
    let i_1 = i_2 / SIZE_2;
    let i_0 = i_1 / SIZE_1;
    let c = vec4<u32>(i_0, i_1 - i_0 * SIZE_1, i_2 - i_1 * SIZE_2, i - i_2 * SIZE_3);
    let scaled = vec4<i32>(c) * params.mul + params.add;
    let div = vec4<i32>(vec4<u32>(DIV_0, DIV_1, DIV_2, DIV_3));
    let source = scaled / div;
    let inside = scaled >= vec4<i32>(0) & source < params.source_shape & source * div == scaled;
    var value = 0.0;
    if (all(inside)) {
        let at = source * params.source_strides;
        value = x[at.x + at.y + at.z + at.w];
    }
    y[i] = value;
}
