// For each row of x the values that stand at given places of the row in ascending order. Selection
// by radix: four rounds, each counts what the next 8 bits of the candidates are (`count`) and keeps
// those with the bits of the one that is sought (`pick`). A task is one place of one row.

#import grid

struct Params {
    tasks: u32,
    len: u32,
    // Places that are sought in each row.
    count: u32,
    round: u32,
    places: vec4<u32>,
    // Workgroups that share a task's counting, and how many values each takes.
    parts: u32,
    per_part: u32,
    _0: u32,
    _1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [tasks, parts, 256].
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
// Of each task the bits known so far, from the left, and the place among the values that have them.
@group(0) @binding(2) var<storage, read_write> found: array<vec2<u32>>;
// x to `count`, the result to `pick`.
@group(0) @binding(3) var<storage, read_write> values: array<f32>;

var<workgroup> bins: array<atomic<u32>, 256>;

// Floats as numbers that are ordered as they are: -0 before 0, NaN at the ends.
fn key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return bits ^ select(0x80000000u, 0xffffffffu, (bits >> 31u) == 1u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, (key >> 31u) == 1u));
}

// Each workgroup counts the next digits in one part of one row.
@compute @workgroup_size(256)
fn count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(workgroup, workgroups);
    let task = min(index / params.parts, params.tasks - 1u);
    let part = index % params.parts;
    atomicStore(&bins[local], 0u);
    workgroupBarrier();
    var known = 0u;
    if (params.round > 0u) {
        known = found[task].x;
    }
    let shift = 24u - 8u * params.round;
    let row = (task / params.count) * params.len;
    let first = part * params.per_part;
    let end = min(first + params.per_part, params.len);
    for (var i = first + local; i < end; i += 256u) {
        let k = key(values[row + i]);
        // In two shifts: one by 32 would be none.
        if ((k >> shift) >> 8u == known) {
            atomicAdd(&bins[(k >> shift) & 255u], 1u);
        }
    }
    workgroupBarrier();
    if (index < params.tasks * params.parts) {
        counts[index * 256u + local] = atomicLoad(&bins[local]);
    }
}

// Each workgroup finds the next digit of one task, and after the last round its value.
@compute @workgroup_size(256)
fn pick(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(workgroup, workgroups);
    let task = min(index, params.tasks - 1u);
    var sum = 0u;
    for (var part = 0u; part < params.parts; part++) {
        sum += counts[(task * params.parts + part) * 256u + local];
    }
    atomicStore(&bins[local], sum);
    workgroupBarrier();
    if (local > 0u || index >= params.tasks) {
        return;
    }
    var before = vec2<u32>(0u, params.places[task % params.count]);
    if (params.round > 0u) {
        before = found[task];
    }
    var left = before.y;
    var digit = 0u;
    for (; digit < 255u; digit++) {
        let here = atomicLoad(&bins[digit]);
        if (left < here) {
            break;
        }
        left -= here;
    }
    let bits = (before.x << 8u) | digit;
    found[task] = vec2<u32>(bits, left);
    if (params.round == 3u) {
        values[task] = value_of(bits);
    }
}
