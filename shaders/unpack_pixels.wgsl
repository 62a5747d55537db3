// Images of bytes, four to a word from the lowest on, as normalised numbers. Each invocation reads a word and writes the
// numbers of its bytes.

#import grid

struct Params {
    // Numbers of all images.
    len: u32,
    channels: u32,
    // Pixels of a channel.
    plane: u32,
    _0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> deviation: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    // Not 4 * i: i may be past the end by more than 32 bits hold.
    if (i >= (params.len - 1u) / 4u + 1u) {
        return;
    }
    let bytes = words[i];
    for (var k = 0u; k < min(4u, params.len - 4u * i); k++) {
        let at = 4u * i + k;
        let channel = at / params.plane % params.channels;
        let value = f32((bytes >> (8u * k)) & 255u) / 255.0;
        y[at] = (value - mean[channel]) / deviation[channel];
    }
}
