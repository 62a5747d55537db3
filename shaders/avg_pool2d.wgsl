// Average pooling of NCHW images (floor mode, zeros of the padding count) and its gradient.

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
    let p = params;
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= p.planes * p.out_h * p.out_w) {
        return;
    }
    let ow = i % p.out_w;
    let oh = (i / p.out_w) % p.out_h;
    let plane = i / (p.out_w * p.out_h);
    var sum = 0.0;
    for (var ky = 0u; ky < p.kernel_size; ky++) {
        let y = oh * p.stride + ky - p.padding;
        for (var kx = 0u; kx < p.kernel_size; kx++) {
            let x = ow * p.stride + kx - p.padding;
            if (y < p.height && x < p.width) {
                sum += source[(plane * p.height + y) * p.width + x];
            }
        }
    }
    target_[i] = sum / f32(p.kernel_size * p.kernel_size);
}

// Each invocation gathers the gradient of one pixel from the windows it lies in.
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
    let right = i % p.width + p.padding;
    let bottom = (i / p.width) % p.height + p.padding;
    let plane = i / (p.width * p.height);
    let first_oh = select(0u, (bottom - p.kernel_size) / p.stride + 1u, bottom >= p.kernel_size);
    let first_ow = select(0u, (right - p.kernel_size) / p.stride + 1u, right >= p.kernel_size);
    let last_oh = min(bottom / p.stride, p.out_h - 1u);
    let last_ow = min(right / p.stride, p.out_w - 1u);
    var sum = 0.0;
    for (var oh = first_oh; oh <= last_oh; oh++) {
        for (var ow = first_ow; ow <= last_ow; ow++) {
            sum += source[(plane * p.out_h + oh) * p.out_w + ow];
        }
    }
    target_[i] = sum / f32(p.kernel_size * p.kernel_size);
}
