// Element-wise kernels. The lines between the markers are generated (src/ops/pointwise.rs): one
// binding an input and the expression itself; what stands here is the identity, as an example.
//
// Each invocation computes four neighbouring elements of the output, or of several. Storage is padded to 16
// bytes, so the last vector may reach past the last element but never past the tensor's memory.

#import grid
#import nan

struct Params {
    // Number of vec4 elements of the output.
    vectors: u32,
    // (inner, len) of every broadcast input: element (i / inner) % len belongs to output index i.
    maps: array<vec4<u32>, 8>,
}

@group(0) @binding(0) var<uniform> params: Params;
// <generated>
@group(0) @binding(1) var<storage, read_write> in0: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn value(i: u32) -> vec4<f32> {
    return in0[i / 4u];
}

fn store(v: u32) {
    y[v] = value(v * 4u);
}
// </generated>

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i < params.vectors) {
        store(i);
    }
}
