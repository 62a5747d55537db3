// Patches of NCHW images as rows, and the adjoint.
//
// Row (n * out_h + oh) * out_w + ow, column (c * k_h + ky) * k_w + kx; zeros outside the image.

#import grid

// Constants: compilers make multiplications of divisions by them, and unroll the loop over the taps.
const CHANNELS: u32 = 1u;
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const OUT_H: u32 = 1u;
const OUT_W: u32 = 1u;
const K_H: u32 = 1u;
const K_W: u32 = 1u;
const STRIDE: u32 = 1u;
const PADDING: u32 = 0u;
const DILATION: u32 = 1u;

struct Params {
    batch: u32,
    _0: u32,
    _1: u32,
    _2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;

// Each invocation writes one element of the patch matrix.
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    let taps = K_H * K_W;
    let columns = CHANNELS * taps;
    let positions = OUT_H * OUT_W;
    if (i >= params.batch * positions * columns) {
        return;
    }
    let row = i / columns;
    let column = i - row * columns;
    let n = row / positions;
    let position = row - n * positions;
    let oh = position / OUT_W;
    let ow = position - oh * OUT_W;
    let c = column / taps;
    let tap = column - c * taps;
    let ky = tap / K_W;
    let kx = tap - ky * K_W;
    // Wraps below zero, which the comparison then refuses too.
    let y = oh * STRIDE + ky * DILATION - PADDING;
    let x = ow * STRIDE + kx * DILATION - PADDING;
    var value = 0.0;
    if (y < HEIGHT && x < WIDTH) {
        value = source[((n * CHANNELS + c) * HEIGHT + y) * WIDTH + x];
    }
    target_[i] = value;
}

// Each invocation gathers one pixel: the sum over the taps of the patches it lies in, in a fixed
// order.
@compute @workgroup_size(64)
fn adjoint(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.batch * CHANNELS * HEIGHT * WIDTH) {
        return;
    }
    let x = i % WIDTH;
    let y = (i / WIDTH) % HEIGHT;
    let plane = i / (WIDTH * HEIGHT);
    let c = plane % CHANNELS;
    let n = plane / CHANNELS;
    let columns = CHANNELS * K_H * K_W;
    var sum = 0.0;
    for (var ky = 0u; ky < K_H; ky++) {
        let top = y + PADDING - ky * DILATION;
        let oh = top / STRIDE;
        if (oh >= OUT_H || oh * STRIDE != top) {
            continue;
        }
        for (var kx = 0u; kx < K_W; kx++) {
            let left = x + PADDING - kx * DILATION;
            let ow = left / STRIDE;
            if (ow < OUT_W && ow * STRIDE == left) {
                let row = (n * OUT_H + oh) * OUT_W + ow;
                sum += source[row * columns + (c * K_H + ky) * K_W + kx];
            }
        }
    }
    target_[i] = sum;
}
