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

// Numbers of `mean`, which is repeated along the columns; 0: nothing is subtracted.
const MEAN: u32 = 0u;

struct Params {
    batch: u32,
    _0: u32,
    _1: u32,
    _2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;

@group(0) @binding(2) var<storage, read_write> target_vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;

// An element of the patch matrix.
struct Place {
    n: u32,
    oh: u32,
    ow: u32,
    c: u32,
    ky: u32,
    kx: u32,
}

fn place_of(i: u32) -> Place {
    let taps = K_H * K_W;
    let columns = CHANNELS * taps;
    let positions = OUT_H * OUT_W;
    let row = i / columns;
    let column = i - row * columns;
    let n = row / positions;
    let position = row - n * positions;
    let oh = position / OUT_W;
    let c = column / taps;
    let tap = column - c * taps;
    let ky = tap / K_W;
    return Place(n, oh, position - oh * OUT_W, c, ky, tap - ky * K_W);
}

// The element after, without a division.
fn next(p: Place) -> Place {
    let ends_kx = p.kx + 1u == K_W;
    let ends_ky = ends_kx && p.ky + 1u == K_H;
    let ends_c = ends_ky && p.c + 1u == CHANNELS;
    let ends_ow = ends_c && p.ow + 1u == OUT_W;
    let ends_oh = ends_ow && p.oh + 1u == OUT_H;
    return Place(
        p.n + u32(ends_oh),
        select(p.oh + u32(ends_ow), 0u, ends_oh),
        select(p.ow + u32(ends_c), 0u, ends_ow),
        select(p.c + u32(ends_ky), 0u, ends_c),
        select(p.ky + u32(ends_kx), 0u, ends_ky),
        select(p.kx + 1u, 0u, ends_kx),
    );
}

fn pixel(p: Place) -> f32 {
    // Wraps below zero, which the comparison then refuses too.
    let y = p.oh * STRIDE + p.ky * DILATION - PADDING;
    let x = p.ow * STRIDE + p.kx * DILATION - PADDING;
    let exists = p.n < params.batch && y < HEIGHT && x < WIDTH;
    let at = ((p.n * CHANNELS + p.c) * HEIGHT + y) * WIDTH + x;
    return select(0.0, source[select(0u, at, exists)], exists);
}

fn element(p: Place) -> f32 {
    if (MEAN == 0u) {
        return pixel(p);
    }
    let column = (p.c * K_H + p.ky) * K_W + p.kx;
    return pixel(p) - mean[column % max(MEAN, 1u)];
}

// Each invocation writes four elements of the patch matrix that lie side by side: it divides once for
// them and stores them at once.
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i * 4u < params.batch * OUT_H * OUT_W * CHANNELS * K_H * K_W) {
        let p0 = place_of(i * 4u);
        let p1 = next(p0);
        let p2 = next(p1);
        let p3 = next(p2);
        target_vectors[i] = vec4<f32>(element(p0), element(p1), element(p2), element(p3));
    }
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
