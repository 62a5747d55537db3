// Numbers in [0, 1), each a hash of its index and of the counter. Each invocation writes one.

#import grid

struct Params {
    len: u32,
    _0: u32,
    _1: u32,
    _2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counter: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// PCG-RXS-M-XS with 32 bits of state (O'Neill 2014), as a hash.
fn pcg(value: u32) -> u32 {
    let state = value * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

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
    let key = pcg(bitcast<u32>(counter[0]));
    // 24 bits are what a float holds exactly.
    y[i] = f32(pcg(i + key) >> 8u) * 0x1p-24f;
}
