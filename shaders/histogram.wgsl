// How many values lie in each of BINS equal parts of [low, high]; the last one has its upper end.
// Values outside and NaN are not counted. Counts of integers: any order gives the same.
//
// Each workgroup counts `per_part` values and leaves one row of the result.

#import grid

const BINS: u32 = 1u;

struct Params {
    len: u32,
    parts: u32,
    per_part: u32,
    low: f32,
    high: f32,
    _0: u32,
    _1: u32,
    _2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> counts: array<f32>;

var<workgroup> bins: array<atomic<u32>, BINS>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = linear_workgroup(workgroup, workgroups);
    for (var bin = local; bin < BINS; bin += 256u) {
        atomicStore(&bins[bin], 0u);
    }
    workgroupBarrier();
    let first = part * params.per_part;
    let end = min(first + params.per_part, params.len);
    let per_unit = f32(BINS) / (params.high - params.low);
    for (var i = first + local; i < end; i += 256u) {
        let value = x[i];
        if (value >= params.low && value <= params.high) {
            let bin = u32((value - params.low) * per_unit);
            atomicAdd(&bins[min(bin, BINS - 1u)], 1u);
        }
    }
    workgroupBarrier();
    if (part < params.parts) {
        for (var bin = local; bin < BINS; bin += 256u) {
            counts[part * BINS + bin] = f32(atomicLoad(&bins[bin]));
        }
    }
}
