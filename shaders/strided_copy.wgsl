// A copy under an affine index map in each of four dimensions: transposes, slices, zero padding,
// zero insertion, flips, and the adjoints of all of these. Element c of the output is element
// (c * mul + add) / div of the source in every dimension, or zero where that is no element of it.
//
// `vectors`: for maps that keep vectors of four whole; shape, source and map are in vectors. An invocation
// copies one.
//
// `elements`: for all others. An invocation writes four elements, which lie side by side in the output
// only: it divides once for them and stores them at once.
//
// On lavapipe (2 cores), GB/s with one element an invocation and now: 16 images of 64 x 32 x 32 padded by 1
// 1.5 and 4.2; 64 of 256 channels of 16 x 16 (vectors) 1.6 and 3.8; channels last 1.6 and 3.9.

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
@group(0) @binding(1) var<storage, read_write> x_vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

// Elements, or vectors, of the output.
fn len() -> u32 {
    return params.shape.x * SIZE_1 * SIZE_2 * SIZE_3;
}

fn coordinates(i: u32) -> vec4<u32> {
    let i_2 = i / SIZE_3;
    let i_1 = i_2 / SIZE_2;
    let i_0 = i_1 / SIZE_1;
    return vec4<u32>(i_0, i_1 - i_0 * SIZE_1, i_2 - i_1 * SIZE_2, i - i_2 * SIZE_3);
}

// Those of the next element, without a division.
fn next(c: vec4<u32>) -> vec4<u32> {
    let ends_3 = c.w + 1u == SIZE_3;
    let ends_2 = ends_3 && c.z + 1u == SIZE_2;
    let ends_1 = ends_2 && c.y + 1u == SIZE_1;
    return vec4<u32>(
        c.x + u32(ends_1),
        select(c.y + u32(ends_2), 0u, ends_1),
        select(c.z + u32(ends_3), 0u, ends_2),
        select(c.w + 1u, 0u, ends_3),
    );
}

// Where an element comes from.
struct Origin {
    exists: bool,
    // Of some element if it does not.
    at: u32,
}

fn origin_of(c: vec4<u32>) -> Origin {
    let scaled = vec4<i32>(c) * params.mul + params.add;
    let div = vec4<i32>(vec4<u32>(DIV_0, DIV_1, DIV_2, DIV_3));
    let source = scaled / div;
    let inside = scaled >= vec4<i32>(0) & source < params.source_shape & source * div == scaled;
    let parts = source * params.source_strides;
    let exists = all(inside);
    return Origin(exists, select(0u, u32(parts.x + parts.y + parts.z + parts.w), exists));
}

@compute @workgroup_size(64)
fn vectors(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i < len()) {
        let origin = origin_of(coordinates(i));
        y[i] = select(vec4<f32>(), x_vectors[origin.at], origin.exists);
    }
}

fn element(c: vec4<u32>) -> f32 {
    let origin = origin_of(c);
    return select(0.0, x[origin.at], origin.exists);
}

@compute @workgroup_size(64)
fn elements(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i * 4u < len()) {
        let c0 = coordinates(i * 4u);
        let c1 = next(c0);
        let c2 = next(c1);
        let c3 = next(c2);
        y[i] = vec4<f32>(element(c0), element(c1), element(c2), element(c3));
    }
}
