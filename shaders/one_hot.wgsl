// Rows of zeros with a one at the label; of zeros alone where the label is negative (padding of the last batch), of
// NaN where it is no class. Each invocation writes one element.

#import grid
#import nan

struct Params {
    rows: u32,
    classes: u32,
    // Not to be written in WGSL.
    nan: f32,
    _0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> labels: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.rows * params.classes) {
        return;
    }
    let row = i / params.classes;
    let class_ = i - row * params.classes;
    let label = labels[row];
    var other = 0.0;
    // Whole numbers below the number of classes; NaN is none of them.
    if (!is_negative(label) && !(label < f32(params.classes) && floor(label) == label)) {
        other = params.nan;
    }
    y[i] = select(other, 1.0, label == f32(class_));
}
