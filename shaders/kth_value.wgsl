// For each row of x the values that stand at given places of the row in ascending order. Selection
// by radix: four rounds, each counts what the next 8 bits of the candidates are, and keeps those
// with the bits of the one that is sought.
//
// Each workgroup finds one value of one row.

#import grid

struct Params {
    rows: u32,
    len: u32,
    count: u32,
    _0: u32,
    places: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> counts: array<atomic<u32>, 256>;
// The bits known so far, from the left, and the place among the values that have them.
var<workgroup> prefix: u32;
var<workgroup> place: u32;

// Floats as numbers that are ordered as they are: -0 before 0, NaN at the ends.
fn key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return bits ^ select(0x80000000u, 0xffffffffu, (bits >> 31u) == 1u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, (key >> 31u) == 1u));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let task = linear_workgroup(workgroup, workgroups);
    // Past the end of the grid the last task is done again, so that all reach the barriers.
    let row = min(task / params.count, params.rows - 1u);
    let which = task % params.count;
    if (local == 0u) {
        prefix = 0u;
        place = params.places[which];
    }
    for (var round = 0u; round < 4u; round++) {
        atomicStore(&counts[local], 0u);
        workgroupBarrier();
        let shift = 24u - 8u * round;
        let known = prefix;
        for (var i = local; i < params.len; i += 256u) {
            let k = key(x[row * params.len + i]);
            // A shift by 32 is none, so that the first round is told apart.
            if (round == 0u || (k >> (shift + 8u)) == known) {
                atomicAdd(&counts[(k >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if (local == 0u) {
            var left = place;
            var digit = 0u;
            for (; digit < 255u; digit++) {
                let here = atomicLoad(&counts[digit]);
                if (left < here) {
                    break;
                }
                left -= here;
            }
            place = left;
            prefix = (known << 8u) | digit;
        }
        workgroupBarrier();
    }
    if (local == 0u && task < params.rows * params.count) {
        y[task] = value_of(prefix);
    }
}
