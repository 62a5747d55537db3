// The one product behind matmul, convolution, its gradients and covariance:
//
//   C[m, n] = alpha * sum over (k0, k1, k2) of A[m; k] * B[k; n] + diag * (m == n) + bias
//
// where the address of A is affine in (m0, m1, m2) and (k0, k1, k2), that of B in (k0, k1, k2)
// and (n0, n1, n2), and that of C in m and n. src/ops/contraction.rs has the definition.
//
// `direct`: for adapters that run on the CPU. No barriers: a workgroup of 8x2 invocations covers
// 16x64 of C, each invocation 8x8 of it. The sums are named, and not an array, because an array
// that some loop indexes stays in memory (512^3 on lavapipe: 18 GFLOP/s with, 22 without).
// contraction_subgroup.wgsl is twice as fast where it runs, and contraction_tiled.wgsl is for GPUs.
//
// `add_parts`: the sum of a product split over k.

#import grid
#import contraction
#import nan

const BIAS: u32 = 0u;

@compute @workgroup_size(8, 2)
fn direct(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 16u + local.y * 8u;
    let n0 = task.tile_n * 64u + local.x * 8u;
    if (is_idle(task, m0, 8u, n0) || m0 >= params.m || n0 >= params.n) {
        return;
    }
    let a0 = row_of_a(task.batch, m0 + 0u);
    let a1 = row_of_a(task.batch, m0 + 1u);
    let a2 = row_of_a(task.batch, m0 + 2u);
    let a3 = row_of_a(task.batch, m0 + 3u);
    let a4 = row_of_a(task.batch, m0 + 4u);
    let a5 = row_of_a(task.batch, m0 + 5u);
    let a6 = row_of_a(task.batch, m0 + 6u);
    let a7 = row_of_a(task.batch, m0 + 7u);
    let b0 = column_of_b(task.batch, n0 + 0u);
    let b1 = column_of_b(task.batch, n0 + 1u);
    let b2 = column_of_b(task.batch, n0 + 2u);
    let b3 = column_of_b(task.batch, n0 + 3u);
    let b4 = column_of_b(task.batch, n0 + 4u);
    let b5 = column_of_b(task.batch, n0 + 5u);
    let b6 = column_of_b(task.batch, n0 + 6u);
    let b7 = column_of_b(task.batch, n0 + 7u);
    var s0x = vec4<f32>();
    var s0y = vec4<f32>();
    var s1x = vec4<f32>();
    var s1y = vec4<f32>();
    var s2x = vec4<f32>();
    var s2y = vec4<f32>();
    var s3x = vec4<f32>();
    var s3y = vec4<f32>();
    var s4x = vec4<f32>();
    var s4y = vec4<f32>();
    var s5x = vec4<f32>();
    var s5y = vec4<f32>();
    var s6x = vec4<f32>();
    var s6y = vec4<f32>();
    var s7x = vec4<f32>();
    var s7y = vec4<f32>();
    let first = task.split * params.k_per_split;
    let end = min(first + params.k_per_split, params.k.x * params.k.y * params.k.z);
    var walk = walk_from(first);
    for (var k = first; k < end; k++) {
        let bx = vec4<f32>(b[b0 + walk.b], b[b1 + walk.b], b[b2 + walk.b], b[b3 + walk.b]);
        let by = vec4<f32>(b[b4 + walk.b], b[b5 + walk.b], b[b6 + walk.b], b[b7 + walk.b]);
        let x0 = a[a0 + walk.a];
        s0x = fma(vec4(x0), bx, s0x);
        s0y = fma(vec4(x0), by, s0y);
        let x1 = a[a1 + walk.a];
        s1x = fma(vec4(x1), bx, s1x);
        s1y = fma(vec4(x1), by, s1y);
        let x2 = a[a2 + walk.a];
        s2x = fma(vec4(x2), bx, s2x);
        s2y = fma(vec4(x2), by, s2y);
        let x3 = a[a3 + walk.a];
        s3x = fma(vec4(x3), bx, s3x);
        s3y = fma(vec4(x3), by, s3y);
        let x4 = a[a4 + walk.a];
        s4x = fma(vec4(x4), bx, s4x);
        s4y = fma(vec4(x4), by, s4y);
        let x5 = a[a5 + walk.a];
        s5x = fma(vec4(x5), bx, s5x);
        s5y = fma(vec4(x5), by, s5y);
        let x6 = a[a6 + walk.a];
        s6x = fma(vec4(x6), bx, s6x);
        s6y = fma(vec4(x6), by, s6y);
        let x7 = a[a7 + walk.a];
        s7x = fma(vec4(x7), bx, s7x);
        s7y = fma(vec4(x7), by, s7y);
        walk = walk_on(walk);
    }
    var sums = array<vec4<f32>, 16>(
        s0x, s0y, s1x, s1y, s2x, s2y, s3x, s3y,
        s4x, s4y, s5x, s5y, s6x, s6y, s7x, s7y,
    );
    // The columns of this invocation; and, for the mirrored element, the rows of the same numbers.
    var columns: array<u32, 8>;
    var rows: array<u32, 8>;
    var column = column_of_c(n0);
    var row = row_of_c(n0);
    for (var j = 0u; j < 8u; j++) {
        columns[j] = column.at;
        rows[j] = row.at;
        column = next_column_of_c(column);
        row = next_row_of_c(row);
    }
    row = row_of_c(m0);
    column = column_of_c(m0);
    for (var i = 0u; i < 8u; i++) {
        for (var j = 0u; j < 8u; j++) {
            let sum = sums[i * 2u + j / 4u][j % 4u];
            store(task, m0 + i, n0 + j, row.at + columns[j], rows[j] + column.at, sum);
        }
        row = next_row_of_c(row);
        column = next_column_of_c(column);
    }
}

// Adds the parts of a product split over k (`a` holds them, [splits, batch, m, n]), in a fixed
// order. Each invocation finishes one element of C.
@compute @workgroup_size(64)
fn add_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    let len = params.batch * params.m * params.n;
    if (i >= len) {
        return;
    }
    let n = i % params.n;
    let row = i / params.n;
    let m = row % params.m;
    let batch = row / params.m;
    var sum = 0.0;
    for (var s = 0u; s < params.splits; s++) {
        sum += a[s * len + i];
    }
    c[params.c_from + batch * params.c_batch + row_of_c(m).at + column_of_c(n).at] = finished(batch, m, n, sum);
}
