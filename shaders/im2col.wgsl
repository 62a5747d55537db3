// Patches of NCHW images as rows, and the adjoint.
//
// Row (n * out_h + oh) * out_w + ow, column (c * k_h + ky) * k_w + kx; zeros outside the image.

#import grid

struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_h: u32,
    out_w: u32,
    k_h: u32,
    k_w: u32,
    stride: u32,
    padding: u32,
    dilation: u32,
    _0: u32,
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
    let p = params;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    let taps = p.k_h * p.k_w;
    let columns = p.channels * taps;
    let positions = p.out_h * p.out_w;
    if (i >= p.batch * positions * columns) {
        return;
    }
    let row = i / columns;
    let column = i - row * columns;
    let n = row / positions;
    let position = row - n * positions;
    let oh = position / p.out_w;
    let ow = position - oh * p.out_w;
    let c = column / taps;
    let tap = column - c * taps;
    let ky = tap / p.k_w;
    let kx = tap - ky * p.k_w;
    // Wraps below zero, which the comparison then refuses too.
    let y = oh * p.stride + ky * p.dilation - p.padding;
    let x = ow * p.stride + kx * p.dilation - p.padding;
    var value = 0.0;
    if (y < p.height && x < p.width) {
        value = source[((n * p.channels + c) * p.height + y) * p.width + x];
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
    let p = params;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= p.batch * p.channels * p.height * p.width) {
        return;
    }
    let x = i % p.width;
    let y = (i / p.width) % p.height;
    let plane = i / (p.width * p.height);
    let c = plane % p.channels;
    let n = plane / p.channels;
    let columns = p.channels * p.k_h * p.k_w;
    var sum = 0.0;
    for (var ky = 0u; ky < p.k_h; ky++) {
        let top = y + p.padding - ky * p.dilation;
        let oh = top / p.stride;
        if (oh >= p.out_h || oh * p.stride != top) {
            continue;
        }
        for (var kx = 0u; kx < p.k_w; kx++) {
            let left = x + p.padding - kx * p.dilation;
            let ow = left / p.stride;
            if (ow < p.out_w && ow * p.stride == left) {
                let row = (n * p.out_h + oh) * p.out_w + ow;
                sum += source[row * columns + (c * p.k_h + ky) * p.k_w + kx];
            }
        }
    }
    target_[i] = sum;
}
