// 1 for every row whose label is among the k largest logits, else 0. Equal logits before the
// label's count as larger, so that constant logits are not all hits. Each invocation does a row.

#import grid

struct Params {
    rows: u32,
    classes: u32,
    k: u32,
    _0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> hits: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (row >= params.rows) {
        return;
    }
    let label = i32(labels[row]);
    var hit = 0.0;
    if (f32(label) == labels[row] && label >= 0 && label < i32(params.classes)) {
        let first = row * params.classes;
        let own = logits[first + u32(label)];
        var rank = 0u;
        for (var c = 0u; c < params.classes; c++) {
            let other = logits[first + c];
            // Not `other <= own`, so that a NaN is never a hit.
            let before = !(other < own) && (other != own || c < u32(label));
            rank += select(0u, 1u, before && c != u32(label));
        }
        hit = select(0.0, 1.0, rank < params.k && own == own);
    }
    hits[row] = hit;
}
