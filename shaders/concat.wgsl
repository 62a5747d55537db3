// Copies one tensor into its place in the concatenation. Each invocation copies one element of
// the source, which is seen as [outer, part]; or one vector of four, where the places are in vectors.

#import grid

struct Params {
    len: u32,
    // Elements (or vectors) of the source, and of the output, for one outer index.
    part: u32,
    whole: u32,
    // Where the part begins in the whole.
    offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> x_vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y_vectors: array<vec4<f32>>;

fn place_of(i: u32) -> u32 {
    let outer = i / params.part;
    return outer * (params.whole - params.part) + params.offset + i;
}

@compute @workgroup_size(64)
fn elements(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i < params.len) {
        y[place_of(i)] = x[i];
    }
}

@compute @workgroup_size(64)
fn vectors(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i < params.len) {
        y_vectors[place_of(i)] = x_vectors[i];
    }
}
