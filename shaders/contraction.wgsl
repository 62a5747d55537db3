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
// contraction_subgroup.wgsl is twice as fast where it runs.
//
// `tiled`: for GPUs. A workgroup of 16 x ROWS invocations covers 4 ROWS x 64 of C, 16 of k at a time in
// workgroup memory, each invocation a 4x4 block. ROWS is 16, or 4 where C has few rows. A tile is read along k or along m (n), whichever
// is contiguous, so that neighbouring invocations read neighbouring addresses. Checked on lavapipe
// only, where tiles of vectors are 1.3 times as fast as tiles of numbers (512^3: 6.0 GFLOP/s, 4.7).
//
// `add_parts`: the sum of a product split over k.

#import grid
#import contraction

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

// Divisors of the flattened k; larger than any k where k0 = k1 = 1.
const K12: u32 = 4294967295u;
const K2: u32 = 4294967295u;
// 1 where A (B) is contiguous along k rather than along m (n).
const A_ALONG_K: u32 = 0u;
const B_ALONG_K: u32 = 0u;

// 4, 8 or 16.
const ROWS: u32 = 16u;
// Vectors of B that an invocation loads; of A it is one.
const LOADS: u32 = 16u / ROWS;

// 4 values along m (n) to a vector, so that a product reads two vectors. One vector more than there are: writing
// along k then spreads over the banks.
var<workgroup> tile_a: array<array<vec4<f32>, ROWS + 1u>, 16>;
var<workgroup> tile_b: array<array<vec4<f32>, 17>, 16>;

// The `index`-th vector of a tile that has so many along m or n: x along k, y along m or n.
fn loaded(index: u32, along_k: u32, vectors: u32) -> vec2<u32> {
    if (along_k == 1u) {
        return vec2<u32>(index % 16u, index / 16u);
    }
    return vec2<u32>(index / vectors, index % vectors);
}

fn k_address(k: u32, strides: vec3<u32>) -> u32 {
    let k0 = k / K12;
    let rest = k - k0 * K12;
    let at = vec3<u32>(k0, rest / K2, rest % K2) * strides;
    return at.x + at.y + at.z;
}

@compute @workgroup_size(16, ROWS)
fn tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 4u * ROWS;
    let n0 = task.tile_n * 64u;
    // The same for the whole workgroup.
    if (is_idle(task, m0, 4u * ROWS, n0)) {
        return;
    }
    // Rows and columns past the end repeat the last one and are not written.
    let at_a = loaded(index, A_ALONG_K, ROWS);
    var a_at: vec4<u32>;
    var at_b: array<vec2<u32>, LOADS>;
    var b_at: array<vec4<u32>, LOADS>;
    for (var j = 0u; j < 4u; j++) {
        a_at[j] = row_of_a(task.batch, m0 + at_a.y * 4u + j);
    }
    for (var load = 0u; load < LOADS; load++) {
        at_b[load] = loaded(index + load * 16u * ROWS, B_ALONG_K, 16u);
        for (var j = 0u; j < 4u; j++) {
            b_at[load][j] = column_of_b(task.batch, n0 + at_b[load].y * 4u + j);
        }
    }
    let first = task.split * params.k_per_split;
    let end = min(first + params.k_per_split, params.k.x * params.k.y * params.k.z);
    var sum: array<vec4<f32>, 4>;
    for (var k = first; k < end; k += 16u) {
        var value_a = vec4<f32>();
        if (k + at_a.x < end) {
            let at = a_at + k_address(k + at_a.x, params.a_k);
            value_a = vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]);
        }
        tile_a[at_a.x][at_a.y] = value_a;
        for (var load = 0u; load < LOADS; load++) {
            let place = at_b[load];
            var value_b = vec4<f32>();
            if (k + place.x < end) {
                let at = b_at[load] + k_address(k + place.x, params.b_k);
                value_b = vec4<f32>(b[at.x], b[at.y], b[at.z], b[at.w]);
            }
            tile_b[place.x][place.y] = value_b;
        }
        workgroupBarrier();
        for (var row = 0u; row < 16u; row++) {
            let x = tile_a[row][local.y];
            let y = tile_b[row][local.x];
            sum[0] += x.x * y;
            sum[1] += x.y * y;
            sum[2] += x.z * y;
            sum[3] += x.w * y;
        }
        workgroupBarrier();
    }
    // The first of this invocation's rows and columns; and, for the mirrored element, the column and
    // row of the same numbers.
    let m = m0 + local.y * 4u;
    let n = n0 + local.x * 4u;
    var row = row_of_c(m);
    var mirrored_column = column_of_c(m);
    let first_column = column_of_c(n);
    let first_mirrored_row = row_of_c(n);
    for (var i = 0u; i < 4u; i++) {
        var column = first_column;
        var mirrored_row = first_mirrored_row;
        for (var j = 0u; j < 4u; j++) {
            let mirrored = mirrored_row.at + mirrored_column.at;
            store(task, m + i, n + j, row.at + column.at, mirrored, sum[i][j]);
            column = next_column_of_c(column);
            mirrored_row = next_row_of_c(mirrored_row);
        }
        row = next_row_of_c(row);
        mirrored_column = next_column_of_c(mirrored_column);
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
    c[batch * params.c_batch + row_of_c(m).at + column_of_c(n).at] = finished(batch, m, n, sum);
}
