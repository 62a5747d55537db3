// Copies one tensor into its place in the concatenation. Each invocation copies one element of
// the source, which is seen as [outer, part].

#import grid

struct Params {
    len: u32,
    // Elements of the source, and of the output, for one outer index.
    part: u32,
    whole: u32,
    // Where the part begins in the whole.
    offset: u32,
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
    if (i < params.len) {
        y[(i / params.part) * params.whole + params.offset + i % params.part] = x[i];
    }
}
