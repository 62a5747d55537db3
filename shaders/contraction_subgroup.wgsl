// The product of contraction.wgsl for adapters that run on the CPU eight invocations at a time
// (lavapipe: one vector register is one subgroup).
//
// There a load costs eight times what it costs a GPU, one scalar load and one bounds check for
// each invocation, and a product and sum costs one instruction. So nothing is loaded twice: a
// workgroup is one subgroup and covers 32x32 of C, each invocation all 32 rows of 4 columns of its
// own. Of A, invocation i loads every eighth row and broadcasts it to the others. That makes 8
// loads for 128 products (`direct`: 16 for 64).
//
// Measured on 2 cores, lavapipe 25.0.7, GFLOP/s for 512^3 / a 3x3 convolution / its weight
// gradient: `direct` in arrays 18 / 16 / 19, in named sums 22 / 17 / 22; with broadcasts and three
// loops over k, 8x8 a invocation 29 / 22 / 30, 16x4 37 / 28 / 40, 16x8 42 / 31 / 46, 16x16 45 / 35
// / 45, 32x4 43 / 33 / 50; with one loop over k, 32x4 41 / 41 / 52. That loop unrolled twice 31 /
// 33 / 37 and four times 24 / 22 / 26, the compile time growing as much. Uniform loads, from
// addresses that the workgroup shares, cost as much as others. `fma` in place of a product and a sum,
// which lavapipe does not contract, 4% (the sums live in memory: their loads and stores remain).

#import grid
#import contraction

const BIAS: u32 = 0u;

@compute @workgroup_size(8)
fn direct_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 32u;
    let n0 = task.tile_n * 32u + lane * 4u;
    // The same for the whole subgroup: broadcasts need all of it.
    if (is_idle(task, m0, 32u, task.tile_n * 32u)) {
        return;
    }
    let a0 = row_of_a(task.batch, m0 + 0u + lane);
    let a8 = row_of_a(task.batch, m0 + 8u + lane);
    let a16 = row_of_a(task.batch, m0 + 16u + lane);
    let a24 = row_of_a(task.batch, m0 + 24u + lane);
    let b0 = column_of_b(task.batch, n0 + 0u);
    let b1 = column_of_b(task.batch, n0 + 1u);
    let b2 = column_of_b(task.batch, n0 + 2u);
    let b3 = column_of_b(task.batch, n0 + 3u);
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    var s8 = vec4<f32>();
    var s9 = vec4<f32>();
    var s10 = vec4<f32>();
    var s11 = vec4<f32>();
    var s12 = vec4<f32>();
    var s13 = vec4<f32>();
    var s14 = vec4<f32>();
    var s15 = vec4<f32>();
    var s16 = vec4<f32>();
    var s17 = vec4<f32>();
    var s18 = vec4<f32>();
    var s19 = vec4<f32>();
    var s20 = vec4<f32>();
    var s21 = vec4<f32>();
    var s22 = vec4<f32>();
    var s23 = vec4<f32>();
    var s24 = vec4<f32>();
    var s25 = vec4<f32>();
    var s26 = vec4<f32>();
    var s27 = vec4<f32>();
    var s28 = vec4<f32>();
    var s29 = vec4<f32>();
    var s30 = vec4<f32>();
    var s31 = vec4<f32>();
    let first = task.split * params.k_per_split;
    let end = min(first + params.k_per_split, params.k.x * params.k.y * params.k.z);
    var walk = walk_from(first);
    for (var k = first; k < end; k++) {
        let y = vec4<f32>(b[b0 + walk.b], b[b1 + walk.b], b[b2 + walk.b], b[b3 + walk.b]);
        let x0 = a[a0 + walk.a];
        let x8 = a[a8 + walk.a];
        let x16 = a[a16 + walk.a];
        let x24 = a[a24 + walk.a];
        s0 = fma(vec4(subgroupBroadcast(x0, 0u)), y, s0);
        s1 = fma(vec4(subgroupBroadcast(x0, 1u)), y, s1);
        s2 = fma(vec4(subgroupBroadcast(x0, 2u)), y, s2);
        s3 = fma(vec4(subgroupBroadcast(x0, 3u)), y, s3);
        s4 = fma(vec4(subgroupBroadcast(x0, 4u)), y, s4);
        s5 = fma(vec4(subgroupBroadcast(x0, 5u)), y, s5);
        s6 = fma(vec4(subgroupBroadcast(x0, 6u)), y, s6);
        s7 = fma(vec4(subgroupBroadcast(x0, 7u)), y, s7);
        s8 = fma(vec4(subgroupBroadcast(x8, 0u)), y, s8);
        s9 = fma(vec4(subgroupBroadcast(x8, 1u)), y, s9);
        s10 = fma(vec4(subgroupBroadcast(x8, 2u)), y, s10);
        s11 = fma(vec4(subgroupBroadcast(x8, 3u)), y, s11);
        s12 = fma(vec4(subgroupBroadcast(x8, 4u)), y, s12);
        s13 = fma(vec4(subgroupBroadcast(x8, 5u)), y, s13);
        s14 = fma(vec4(subgroupBroadcast(x8, 6u)), y, s14);
        s15 = fma(vec4(subgroupBroadcast(x8, 7u)), y, s15);
        s16 = fma(vec4(subgroupBroadcast(x16, 0u)), y, s16);
        s17 = fma(vec4(subgroupBroadcast(x16, 1u)), y, s17);
        s18 = fma(vec4(subgroupBroadcast(x16, 2u)), y, s18);
        s19 = fma(vec4(subgroupBroadcast(x16, 3u)), y, s19);
        s20 = fma(vec4(subgroupBroadcast(x16, 4u)), y, s20);
        s21 = fma(vec4(subgroupBroadcast(x16, 5u)), y, s21);
        s22 = fma(vec4(subgroupBroadcast(x16, 6u)), y, s22);
        s23 = fma(vec4(subgroupBroadcast(x16, 7u)), y, s23);
        s24 = fma(vec4(subgroupBroadcast(x24, 0u)), y, s24);
        s25 = fma(vec4(subgroupBroadcast(x24, 1u)), y, s25);
        s26 = fma(vec4(subgroupBroadcast(x24, 2u)), y, s26);
        s27 = fma(vec4(subgroupBroadcast(x24, 3u)), y, s27);
        s28 = fma(vec4(subgroupBroadcast(x24, 4u)), y, s28);
        s29 = fma(vec4(subgroupBroadcast(x24, 5u)), y, s29);
        s30 = fma(vec4(subgroupBroadcast(x24, 6u)), y, s30);
        s31 = fma(vec4(subgroupBroadcast(x24, 7u)), y, s31);
        walk = walk_on(walk);
    }
    var sums = array<vec4<f32>, 32>(
        s0, s1, s2, s3, s4, s5, s6, s7,
        s8, s9, s10, s11, s12, s13, s14, s15,
        s16, s17, s18, s19, s20, s21, s22, s23,
        s24, s25, s26, s27, s28, s29, s30, s31,
    );
    // The columns of this invocation; and, for the mirrored element, the rows of the same numbers.
    let column0 = column_of_c(n0);
    let column1 = next_column_of_c(column0);
    let column2 = next_column_of_c(column1);
    let column3 = next_column_of_c(column2);
    var columns = array<u32, 4>(column0.at, column1.at, column2.at, column3.at);
    let row0 = row_of_c(n0);
    let row1 = next_row_of_c(row0);
    let row2 = next_row_of_c(row1);
    let row3 = next_row_of_c(row2);
    var rows = array<u32, 4>(row0.at, row1.at, row2.at, row3.at);
    var row = row_of_c(m0);
    var column = column_of_c(m0);
    for (var i = 0u; i < 32u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let sum = sums[i][j];
            store(task, m0 + i, n0 + j, row.at + columns[j], rows[j] + column.at, sum);
        }
        row = next_row_of_c(row);
        column = next_column_of_c(column);
    }
}
