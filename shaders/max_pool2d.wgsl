// Max pooling of NCHW images (floor mode, padding counts as nothing) and its gradient, which
// goes to the first largest pixel of every window, in the order of rows. A NaN is larger than all numbers,
// as in PyTorch. So where a pixel is looked for, bits are compared: NaN == NaN is false.

#import grid
#import nan
#import pool2d

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.planes * OUT_H * OUT_W) {
        return;
    }
    let ow = i % OUT_W;
    let oh = (i / OUT_W) % OUT_H;
    let plane = i / (OUT_W * OUT_H);
    var largest = 0.0;
    var is_first = true;
    for (var ky = 0u; ky < KERNEL_SIZE; ky++) {
        let row = oh * STRIDE + ky - PADDING;
        for (var kx = 0u; kx < KERNEL_SIZE; kx++) {
            let column = ow * STRIDE + kx - PADDING;
            if (row < HEIGHT && column < WIDTH) {
                let value = x[(plane * HEIGHT + row) * WIDTH + column];
                if (is_first || value > largest || is_nan(value)) {
                    largest = value;
                }
                is_first = false;
            }
        }
    }
    y[i] = largest;
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
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.planes * HEIGHT * WIDTH) {
        return;
    }
    let column = i % WIDTH;
    let row = (i / WIDTH) % HEIGHT;
    let plane = i / (WIDTH * HEIGHT);
    let value = bitcast<u32>(x[i]);
    let last_oh = last_window(row + PADDING, OUT_H);
    let last_ow = last_window(column + PADDING, OUT_W);
    var sum = 0.0;
    for (var oh = first_window(row + PADDING); oh <= last_oh; oh++) {
        for (var ow = first_window(column + PADDING); ow <= last_ow; ow++) {
            let window = (plane * OUT_H + oh) * OUT_W + ow;
            if (value == bitcast<u32>(y[window]) && is_first(plane, oh, ow, row, column, value)) {
                sum += y_grad[window];
            }
        }
    }
    x_grad[i] = sum;
}

// True if no pixel of the window before (row, column) equals its largest value.
fn is_first(plane: u32, oh: u32, ow: u32, row: u32, column: u32, largest: u32) -> bool {
    for (var ky = 0u; ky < KERNEL_SIZE; ky++) {
        let other_row = oh * STRIDE + ky - PADDING;
        for (var kx = 0u; kx < KERNEL_SIZE; kx++) {
            let other_column = ow * STRIDE + kx - PADDING;
            if (other_row == row && other_column == column) {
                return true;
            }
            if (other_row < HEIGHT && other_column < WIDTH) {
                if (bitcast<u32>(x[(plane * HEIGHT + other_row) * WIDTH + other_column]) == largest) {
                    return false;
                }
            }
        }
    }
    return true;
}

// The same for windows that do not overlap, without looking twice at a pixel. Each invocation
// writes the STRIDE x STRIDE pixels that begin with a window.
@compute @workgroup_size(64)
fn backward_apart(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // Pixels past the last window have no gradient, but must be written.
    let cells_h = (HEIGHT + PADDING + STRIDE - 1u) / STRIDE;
    let cells_w = (WIDTH + PADDING + STRIDE - 1u) / STRIDE;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.planes * cells_h * cells_w) {
        return;
    }
    let ow = i % cells_w;
    let oh = (i / cells_w) % cells_h;
    let plane = i / (cells_w * cells_h);
    var is_pending = oh < OUT_H && ow < OUT_W;
    var largest = 0u;
    var grad = 0.0;
    if (is_pending) {
        let window = (plane * OUT_H + oh) * OUT_W + ow;
        largest = bitcast<u32>(y[window]);
        grad = y_grad[window];
    }
    for (var ky = 0u; ky < STRIDE; ky++) {
        let row = oh * STRIDE + ky - PADDING;
        for (var kx = 0u; kx < STRIDE; kx++) {
            let column = ow * STRIDE + kx - PADDING;
            if (row < HEIGHT && column < WIDTH) {
                let at = (plane * HEIGHT + row) * WIDTH + column;
                let in_window = ky < KERNEL_SIZE && kx < KERNEL_SIZE;
                let is_first = is_pending && in_window && bitcast<u32>(x[at]) == largest;
                x_grad[at] = select(0.0, grad, is_first);
                is_pending = is_pending && !is_first;
            }
        }
    }
}
