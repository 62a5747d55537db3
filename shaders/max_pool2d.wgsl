// Max pooling of NCHW images (floor mode, padding counts as -infinity) and its gradient, which
// goes to the first largest pixel of every window, in the order of rows.

#import grid

struct Params {
    planes: u32,
    height: u32,
    width: u32,
    out_h: u32,
    out_w: u32,
    kernel_size: u32,
    stride: u32,
    padding: u32,
}

const LOWEST: f32 = -3.4028235e38;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> in1: array<f32>;

// Each invocation computes one output (at binding 2).
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = params;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= p.planes * p.out_h * p.out_w) {
        return;
    }
    let ow = i % p.out_w;
    let oh = (i / p.out_w) % p.out_h;
    let plane = i / (p.out_w * p.out_h);
    var largest = LOWEST;
    for (var ky = 0u; ky < p.kernel_size; ky++) {
        let y = oh * p.stride + ky - p.padding;
        for (var kx = 0u; kx < p.kernel_size; kx++) {
            let column = ow * p.stride + kx - p.padding;
            if (y < p.height && column < p.width) {
                let value = x[(plane * p.height + y) * p.width + column];
                // A NaN stays, so that the loss shows it.
                if (!(value <= largest)) {
                    largest = value;
                }
            }
        }
    }
    in1[i] = largest;
}

// Each invocation gathers the gradient of one pixel from the windows that it is the first largest
// of. Bindings: x, y, the gradient of y, the gradient of x.
@group(0) @binding(3) var<storage, read_write> y_grad: array<f32>;
@group(0) @binding(4) var<storage, read_write> x_grad: array<f32>;

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = params;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= p.planes * p.height * p.width) {
        return;
    }
    let column = i % p.width;
    let y = (i / p.width) % p.height;
    let plane = i / (p.width * p.height);
    let value = x[i];
    // Windows that hold row y: oh * stride <= y + padding < oh * stride + kernel_size.
    let bottom = y + p.padding;
    let right = column + p.padding;
    let first_oh = select(0u, (bottom - p.kernel_size) / p.stride + 1u, bottom >= p.kernel_size);
    let first_ow = select(0u, (right - p.kernel_size) / p.stride + 1u, right >= p.kernel_size);
    let last_oh = min(bottom / p.stride, p.out_h - 1u);
    let last_ow = min(right / p.stride, p.out_w - 1u);
    var sum = 0.0;
    for (var oh = first_oh; oh <= last_oh; oh++) {
        for (var ow = first_ow; ow <= last_ow; ow++) {
            let window = (plane * p.out_h + oh) * p.out_w + ow;
            if (value == in1[window] && is_first(plane, oh, ow, y, column, value)) {
                sum += y_grad[window];
            }
        }
    }
    x_grad[i] = sum;
}

// True if no pixel of the window before (y, column) equals its largest value.
fn is_first(plane: u32, oh: u32, ow: u32, y: u32, column: u32, largest: f32) -> bool {
    let p = params;
    for (var ky = 0u; ky < p.kernel_size; ky++) {
        let row = oh * p.stride + ky - p.padding;
        for (var kx = 0u; kx < p.kernel_size; kx++) {
            let other = ow * p.stride + kx - p.padding;
            if (row == y && other == column) {
                return true;
            }
            if (row < p.height && other < p.width) {
                if (x[(plane * p.height + row) * p.width + other] == largest) {
                    return false;
                }
            }
        }
    }
    return true;
}
