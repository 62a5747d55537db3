// Sums over all dimensions but one contiguous run. The domain is seen as [outer, mid, inner]; one
// sum for each of `mid`. `values(i)`, generated (src/ops/reduce_sum.rs), has the summand: the input
// itself or the element-wise chain that fusion put before the sum; and that of a second sum of the
// same domain where a dispatch computes two. `put` stores a sum.
//
// Order of summation is fixed, so two runs give the same bits: each invocation adds its stride (of a short
// sum all), one invocation adds those of a workgroup, `add_parts` adds the splits.

#import grid
#import nan

struct Params {
    outer: u32,
    mid: u32,
    inner: u32,
    // Workgroups that share one sum; each leaves one part.
    splits: u32,
    // Columns: rows per split. Rows: vectors (or elements) per split.
    per_split: u32,
    scale: f32,
    // Columns: rows whose sum is added to that of the others, for fewer roundings on the way of each summand than
    // in one long sum.
    block: u32,
    _0: u32,
    maps: array<vec4<u32>, 8>,
}

// 4: the summands of four neighbouring indices at once; 1: any alignment.
const WIDTH: u32 = 4u;

// Invocations of a workgroup.
const WORKGROUP: u32 = 64u;

// Sums at once, 1 or 2.
const SUMS: u32 = 1u;

struct Values {
    first: vec4<f32>,
    second: vec4<f32>,
}

@group(0) @binding(0) var<uniform> params: Params;
// <generated>
@group(0) @binding(1) var<storage, read_write> in0: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> parts0: array<f32>;

fn values(i: u32) -> Values {
    return Values(in0[i / 4u], vec4<f32>(0.0));
}

fn put(sum: u32, at: u32, total: f32) {
    if (sum == 0u) {
        parts0[at] = total;
    }
}
// </generated>

var<workgroup> shared_sums: array<f32, WORKGROUP * SUMS>;

fn across(sum: vec4<f32>) -> f32 {
    if (WIDTH == 4u) {
        return (sum.x + sum.y) + (sum.z + sum.w);
    }
    return sum.x;
}

// Each workgroup sums one split of one row of `mid`: `per_split` vectors of the outer x inner
// summands, invocation j taking every WORKGROUP-th from j on.
@compute @workgroup_size(WORKGROUP)
fn rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let task = linear_workgroup(workgroup, workgroups);
    let m = task % params.mid;
    let split = task / params.mid;
    let inner = params.inner / WIDTH;
    let first = split * params.per_split;
    let end = min(first + params.per_split, params.outer * inner);
    var first_sum = vec4<f32>(0.0);
    var second_sum = vec4<f32>(0.0);
    if (split < params.splits) {
        for (var r = first + local; r < end; r += WORKGROUP) {
            let o = r / inner;
            let j = r - o * inner;
            let summands = values((o * params.mid + m) * params.inner + j * WIDTH);
            first_sum += summands.first;
            if (SUMS == 2u) {
                second_sum += summands.second;
            }
        }
    }
    shared_sums[local] = across(first_sum);
    if (SUMS == 2u) {
        shared_sums[WORKGROUP + local] = across(second_sum);
    }
    workgroupBarrier();
    if (local < SUMS && split < params.splits) {
        var total = 0.0;
        for (var j = 0u; j < WORKGROUP; j++) {
            total += shared_sums[local * WORKGROUP + j];
        }
        put(local, split * params.mid + m, total * params.scale);
    }
}

// Few summands of many sums: each invocation adds all outer x inner of one, the sums of `inner` first.
@compute @workgroup_size(WORKGROUP)
fn short_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let m = linear_workgroup(workgroup, workgroups) * WORKGROUP + local;
    if (m >= params.mid) {
        return;
    }
    var first_sum = vec4<f32>(0.0);
    var second_sum = vec4<f32>(0.0);
    for (var o = 0u; o < params.outer; o++) {
        let row = (o * params.mid + m) * params.inner;
        var first_part = vec4<f32>(0.0);
        var second_part = vec4<f32>(0.0);
        for (var j = 0u; j < params.inner; j += WIDTH) {
            let summands = values(row + j);
            first_part += summands.first;
            if (SUMS == 2u) {
                second_part += summands.second;
            }
        }
        first_sum += first_part;
        second_sum += second_part;
    }
    put(0u, m, across(first_sum) * params.scale);
    if (SUMS == 2u) {
        put(1u, m, across(second_sum) * params.scale);
    }
}

// inner = 1, mid a multiple of WIDTH: each invocation sums WIDTH neighbouring columns over the
// rows of one split.
@compute @workgroup_size(WORKGROUP)
fn columns(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let columns = params.mid / WIDTH;
    let groups = (columns + WORKGROUP - 1u) / WORKGROUP;
    let task = linear_workgroup(workgroup, workgroups);
    let column = (task % groups) * WORKGROUP + local;
    let split = task / groups;
    if (column >= columns || split >= params.splits) {
        return;
    }
    let end = min((split + 1u) * params.per_split, params.outer);
    var first_sum = vec4<f32>(0.0);
    var second_sum = vec4<f32>(0.0);
    for (var block = split * params.per_split; block < end; block += params.block) {
        var first_part = vec4<f32>(0.0);
        var second_part = vec4<f32>(0.0);
        for (var row = block; row < min(block + params.block, end); row++) {
            let summands = values(row * params.mid + column * WIDTH);
            first_part += summands.first;
            if (SUMS == 2u) {
                second_part += summands.second;
            }
        }
        first_sum += first_part;
        second_sum += second_part;
    }
    for (var j = 0u; j < WIDTH; j++) {
        let at = split * params.mid + column * WIDTH + j;
        put(0u, at, first_sum[j] * params.scale);
        if (SUMS == 2u) {
            put(1u, at, second_sum[j] * params.scale);
        }
    }
}
