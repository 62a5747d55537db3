// Average pooling of NCHW images (floor mode, zeros of the padding count) and its gradient.

#import grid
#import pool2d

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;

// Each invocation computes one output.
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
    var sum = 0.0;
    for (var ky = 0u; ky < KERNEL_SIZE; ky++) {
        let y = oh * STRIDE + ky - PADDING;
        for (var kx = 0u; kx < KERNEL_SIZE; kx++) {
            let x = ow * STRIDE + kx - PADDING;
            if (y < HEIGHT && x < WIDTH) {
                sum += source[(plane * HEIGHT + y) * WIDTH + x];
            }
        }
    }
    target_[i] = sum / f32(KERNEL_SIZE * KERNEL_SIZE);
}

// Each invocation gathers the gradient of one pixel from the windows it lies in.
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
    let right = i % WIDTH + PADDING;
    let bottom = (i / WIDTH) % HEIGHT + PADDING;
    let plane = i / (WIDTH * HEIGHT);
    let last_oh = last_window(bottom, OUT_H);
    let last_ow = last_window(right, OUT_W);
    var sum = 0.0;
    for (var oh = first_window(bottom); oh <= last_oh; oh++) {
        for (var ow = first_window(right); ow <= last_ow; ow++) {
            sum += source[(plane * OUT_H + oh) * OUT_W + ow];
        }
    }
    target_[i] = sum / f32(KERNEL_SIZE * KERNEL_SIZE);
}
