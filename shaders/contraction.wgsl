// The one product behind matmul, convolution, its gradients and covariance:
//
//   C[m, n] = alpha * sum over (k0, k1, k2) of A[m; k] * B[k; n] + diag * (m == n) + bias
//
// where the address of A is affine in (m0, m1, m2) and (k0, k1, k2), that of B in (k0, k1, k2)
// and (n0, n1, n2), and that of C in m and n. src/ops/contraction.rs has the definition.
//
// `direct`: for adapters that run on the CPU. Barrier-free; each invocation keeps an 8x8 block of
// C in registers and walks k in three nested loops, so that no division is in them. A workgroup of
// 8x8 invocations covers 64x64 of C.
//
// `tiled`: for GPUs. A workgroup of 16x16 invocations covers 64x64 of C, 16 of k at a time in
// workgroup memory, each invocation a 4x4 block.

#import grid

struct Params {
    m: u32,
    n: u32,
    batch: u32,
    splits: u32,
    k0: u32,
    k1: u32,
    k2: u32,
    // Of k0, for one split.
    k0_per_split: u32,
    a_k: vec3<u32>,
    a_batch: u32,
    b_k: vec3<u32>,
    b_batch: u32,
    a_m: vec3<u32>,
    c_batch: u32,
    b_n: vec3<u32>,
    // k2 of the last k0 is shorter by what k_total says: k1 = 1 then.
    k_total: u32,
    c_m: vec3<u32>,
    alpha: f32,
    c_n: vec3<u32>,
    diag: f32,
    m_extents: vec2<u32>,
    n_extents: vec2<u32>,
    tiles_m: u32,
    tiles_n: u32,
    symmetric: u32,
    _0: u32,
}

// 0 none, 1 one value a row, 2 one value a column.
const BIAS: u32 = 0u;
// Divisors of the flattened k in `tiled`; larger than any k where k0 = k1 = 1.
const K12: u32 = 4294967295u;
const K2: u32 = 4294967295u;

@group(0) @binding(0) var<uniform> params: Params;
// B stands last because `add_parts` has none. Without a bias, any buffer is bound for it.
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> b: array<f32>;

fn split_index(i: u32, extents: vec2<u32>) -> vec3<u32> {
    let upper = i / extents.y;
    let top = upper / extents.x;
    return vec3<u32>(top, upper - top * extents.x, i - upper * extents.y);
}

fn offset(i: u32, extents: vec2<u32>, strides: vec3<u32>) -> u32 {
    let at = split_index(i, extents) * strides;
    return at.x + at.y + at.z;
}

// Where a workgroup is: batch element, split of k, and its tile of C.
struct Task {
    batch: u32,
    split: u32,
    tile_m: u32,
    tile_n: u32,
}

fn task_of(index: u32) -> Task {
    let tile = index % (params.tiles_m * params.tiles_n);
    let rest = index / (params.tiles_m * params.tiles_n);
    return Task(rest / params.splits, rest % params.splits, tile / params.tiles_n, tile % params.tiles_n);
}

// Writes one sum: the final value, or with several splits the bare part.
fn store(task: Task, m: u32, n: u32, sum: f32) {
    if (params.splits > 1u) {
        let row = (task.split * params.batch + task.batch) * params.m + m;
        c[row * params.n + n] = sum;
        return;
    }
    c[address(task.batch, m, n)] = finished(task.batch, m, n, sum);
    if (params.symmetric == 1u && m != n) {
        c[address(task.batch, n, m)] = finished(task.batch, n, m, sum);
    }
}

fn address(batch: u32, m: u32, n: u32) -> u32 {
    return batch * params.c_batch + offset(m, params.m_extents, params.c_m)
        + offset(n, params.n_extents, params.c_n);
}

fn finished(batch: u32, m: u32, n: u32, sum: f32) -> f32 {
    var value = params.alpha * sum;
    if (m == n) {
        value += params.diag;
    }
    if (BIAS == 1u) {
        value += bias[batch * params.m + m];
    } else if (BIAS == 2u) {
        value += bias[n];
    }
    return value;
}

@compute @workgroup_size(8, 8)
fn direct(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 64u + local.y * 8u;
    let n0 = task.tile_n * 64u + local.x * 8u;
    let below = params.symmetric == 1u && task.tile_n > task.tile_m;
    if (task.batch >= params.batch || m0 >= params.m || n0 >= params.n || below) {
        return;
    }
    var a_at: array<u32, 8>;
    var b_at: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        // Rows and columns past the end repeat the last one and are not written.
        let m = min(m0 + i, params.m - 1u);
        let n = min(n0 + i, params.n - 1u);
        a_at[i] = task.batch * params.a_batch + offset(m, params.m_extents, params.a_m);
        b_at[i] = task.batch * params.b_batch + offset(n, params.n_extents, params.b_n);
    }
    var sum: array<array<vec4<f32>, 2>, 8>;
    let first = task.split * params.k0_per_split;
    let end = min(first + params.k0_per_split, params.k0);
    for (var k0 = first; k0 < end; k0++) {
        let length = min(params.k2, params.k_total - k0 * params.k2 * params.k1);
        for (var k1 = 0u; k1 < params.k1; k1++) {
            var ka = k0 * params.a_k.x + k1 * params.a_k.y;
            var kb = k0 * params.b_k.x + k1 * params.b_k.y;
            for (var k2 = 0u; k2 < length; k2++) {
                let b0 = vec4<f32>(b[b_at[0] + kb], b[b_at[1] + kb], b[b_at[2] + kb], b[b_at[3] + kb]);
                let b1 = vec4<f32>(b[b_at[4] + kb], b[b_at[5] + kb], b[b_at[6] + kb], b[b_at[7] + kb]);
                for (var i = 0u; i < 8u; i++) {
                    let x = a[a_at[i] + ka];
                    sum[i][0] += x * b0;
                    sum[i][1] += x * b1;
                }
                ka += params.a_k.z;
                kb += params.b_k.z;
            }
        }
    }
    for (var i = 0u; i < 8u; i++) {
        for (var j = 0u; j < 8u; j++) {
            if (m0 + i < params.m && n0 + j < params.n) {
                store(task, m0 + i, n0 + j, sum[i][j / 4u][j % 4u]);
            }
        }
    }
}

var<workgroup> tile_a: array<array<f32, 64>, 16>;
var<workgroup> tile_b: array<array<f32, 64>, 16>;

fn k_split(k: u32) -> vec3<u32> {
    let k0 = k / K12;
    let rest = k - k0 * K12;
    return vec3<u32>(k0, rest / K2, rest % K2);
}

@compute @workgroup_size(16, 16)
fn tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 64u;
    let n0 = task.tile_n * 64u;
    let below = params.symmetric == 1u && task.tile_n > task.tile_m;
    let idle = task.batch >= params.batch || below;
    // Loading: invocation `index` has column index % 64 of the tile, rows index / 64 + 0, 4, 8, 12.
    let lane = index % 64u;
    let a_valid = !idle && m0 + lane < params.m;
    let b_valid = !idle && n0 + lane < params.n;
    let a_base = task.batch * params.a_batch
        + offset(min(m0 + lane, params.m - 1u), params.m_extents, params.a_m);
    let b_base = task.batch * params.b_batch
        + offset(min(n0 + lane, params.n - 1u), params.n_extents, params.b_n);
    let inner = params.k1 * params.k2;
    let first = task.split * params.k0_per_split * inner;
    let end = min(min(first + params.k0_per_split * inner, params.k0 * inner), params.k_total);
    var sum: array<vec4<f32>, 4>;
    for (var k = first; k < end; k += 16u) {
        for (var j = 0u; j < 4u; j++) {
            let row = index / 64u + j * 4u;
            let at = k_split(k + row);
            let inside = k + row < end;
            var value_a = 0.0;
            var value_b = 0.0;
            if (inside && a_valid) {
                let ka = at * params.a_k;
                value_a = a[a_base + ka.x + ka.y + ka.z];
            }
            if (inside && b_valid) {
                let kb = at * params.b_k;
                value_b = b[b_base + kb.x + kb.y + kb.z];
            }
            tile_a[row][lane] = value_a;
            tile_b[row][lane] = value_b;
        }
        workgroupBarrier();
        for (var row = 0u; row < 16u; row++) {
            let left = local.y * 4u;
            let top = local.x * 4u;
            let x = vec4<f32>(tile_a[row][left], tile_a[row][left + 1u], tile_a[row][left + 2u], tile_a[row][left + 3u]);
            let y = vec4<f32>(tile_b[row][top], tile_b[row][top + 1u], tile_b[row][top + 2u], tile_b[row][top + 3u]);
            sum[0] += x.x * y;
            sum[1] += x.y * y;
            sum[2] += x.z * y;
            sum[3] += x.w * y;
        }
        workgroupBarrier();
    }
    if (idle) {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let m = m0 + local.y * 4u + i;
            let n = n0 + local.x * 4u + j;
            if (m < params.m && n < params.n) {
                store(task, m, n, sum[i][j]);
            }
        }
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
    var source = i;
    if (params.symmetric == 1u && n / 64u > m / 64u) {
        // This tile was not computed: its mirror image was.
        source = (batch * params.m + n) * params.n + m;
    }
    var sum = 0.0;
    for (var s = 0u; s < params.splits; s++) {
        sum += a[s * len + source];
    }
    c[address(batch, m, n)] = finished(batch, m, n, sum);
}
