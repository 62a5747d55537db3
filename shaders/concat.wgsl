// Up to four tensors side by side in the concatenation. A tensor is seen as [outer, part]; each
// invocation copies one element.

#import grid

struct Params {
    len: u32,
    // Elements of these tensors, and of the whole output, for one outer index.
    joined: u32,
    whole: u32,
    // Where these tensors begin in the whole.
    offset: u32,
    // Elements of each for one outer index; 0 for what is not there.
    parts: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x0: array<f32>;
@group(0) @binding(2) var<storage, read_write> x1: array<f32>;
@group(0) @binding(3) var<storage, read_write> x2: array<f32>;
@group(0) @binding(4) var<storage, read_write> x3: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

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
    let outer = i / params.joined;
    let at = i - outer * params.joined;
    let parts = params.parts;
    let first = outer * parts + at;
    var value: f32;
    if (at < parts.x) {
        value = x0[first.x];
    } else if (at < parts.x + parts.y) {
        value = x1[first.y - parts.x];
    } else if (at < parts.x + parts.y + parts.z) {
        value = x2[first.z - parts.x - parts.y];
    } else {
        value = x3[first.w - parts.x - parts.y - parts.z];
    }
    y[outer * params.whole + params.offset + at] = value;
}
