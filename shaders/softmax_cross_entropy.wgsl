// Softmax cross-entropy of each row against its label, with label smoothing: the target is
// 1 - smoothing for the label plus smoothing / classes for every class. A row whose label is negative
// (padding of the last batch) has loss and gradient zero, one whose label is no class has NaN.

#import grid
#import nan

struct Params {
    rows: u32,
    classes: u32,
    smoothing: f32,
    // Not to be written in WGSL.
    nan: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn row_max(first: u32) -> f32 {
    var largest = logits[first];
    for (var c = 1u; c < params.classes; c++) {
        largest = max(largest, logits[first + c]);
    }
    return largest;
}

fn of_no_class(label: f32) -> f32 {
    return select(params.nan, 0.0, is_negative(label));
}

// Each invocation computes the loss of one row.
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (row >= params.rows) {
        return;
    }
    let first = row * params.classes;
    let largest = row_max(first);
    let label = labels[row];
    var sum = 0.0;
    var chosen = 0.0;
    var shifted = 0.0;
    var is_class = false;
    for (var c = 0u; c < params.classes; c++) {
        let z = logits[first + c] - largest;
        sum += exp(z);
        shifted += z;
        if (f32(c) == label) {
            chosen = z;
            is_class = true;
        }
    }
    let uniform_part = params.smoothing / f32(params.classes) * shifted;
    let loss = log(sum) - (1.0 - params.smoothing) * chosen - uniform_part;
    y[row] = select(of_no_class(label), loss, is_class);
}

// Each invocation computes the gradient of one row: softmax minus target, times the gradient of
// the row's loss. Bindings: logits, labels, gradient of the losses, gradient of the logits.
@group(0) @binding(3) var<storage, read_write> y_grad: array<f32>;
@group(0) @binding(4) var<storage, read_write> logits_grad: array<f32>;

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (row >= params.rows) {
        return;
    }
    let first = row * params.classes;
    let largest = row_max(first);
    let label = labels[row];
    var sum = 0.0;
    var is_class = false;
    for (var c = 0u; c < params.classes; c++) {
        sum += exp(logits[first + c] - largest);
        is_class = is_class || f32(c) == label;
    }
    let row_grad = select(of_no_class(label), y_grad[row], is_class);
    let uniform_part = params.smoothing / f32(params.classes);
    for (var c = 0u; c < params.classes; c++) {
        let probability = exp(logits[first + c] - largest) / sum;
        let chosen = select(0.0, 1.0 - params.smoothing, f32(c) == label);
        logits_grad[first + c] = (probability - chosen - uniform_part) * row_grad;
    }
}
