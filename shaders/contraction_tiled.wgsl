// The product of contraction.wgsl for GPUs: a workgroup has tiles of A and B in workgroup memory and computes
// one tile of C.
//
// The lines between the markers are written by src/ops/contraction_tiled.rs for a tile's size; what stands
// here is the smallest, as an example. The rest is the same for all: where elements are, and how they are
// read and written.
//
// Extents that are divided by are constants, and so is what only some products have to test; sizes are not, so
// that products of one kind share a pipeline.

#import grid
#import contraction
#import nan

const BIAS: u32 = 0u;
const SYMMETRIC: u32 = 0u;
// 1 where every part of k is a multiple of the tile's depth: nothing is tested then in the loop.
const K_EVEN: u32 = 0u;

const NONE: u32 = 4294967295u;
// Of each operand along each index: the extent of its innermost loop (2), and of the two inner ones together
// (12). NONE where there is no loop around it: loops that follow one another in memory are one.
const A_M12: u32 = 4294967295u;
const A_M2: u32 = 4294967295u;
const A_K12: u32 = 4294967295u;
const A_K2: u32 = 4294967295u;
const B_K12: u32 = 4294967295u;
const B_K2: u32 = 4294967295u;
const B_N12: u32 = 4294967295u;
const B_N2: u32 = 4294967295u;
const C_M12: u32 = 4294967295u;
const C_M2: u32 = 4294967295u;
const C_N12: u32 = 4294967295u;
const C_N2: u32 = 4294967295u;
// 1 where A (B) is contiguous along k rather than along m (n): neighbouring invocations then read
// neighbours along k.
const A_ALONG_K: u32 = 0u;
const B_ALONG_K: u32 = 0u;

// True where four neighbours, the first a multiple of four, are one stride apart: one division serves all.
const A_EVEN: bool = A_M2 == NONE || A_M2 % 4u == 0u;
const B_EVEN: bool = B_N2 == NONE || B_N2 % 4u == 0u;
const C_M_EVEN: bool = C_M2 == NONE || C_M2 % 4u == 0u;
const C_N_EVEN: bool = C_N2 == NONE || C_N2 % 4u == 0u;

const FOUR: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// The offset of the flat index i.
fn address(i: u32, block: u32, row: u32, strides: vec3<u32>) -> u32 {
    var rest = i;
    var at = 0u;
    if (block != NONE) {
        let top = rest / block;
        rest -= top * block;
        at = top * strides.x;
    }
    if (row != NONE) {
        let middle = rest / row;
        rest -= middle * row;
        at += middle * strides.y;
    }
    return at + rest * strides.z;
}

// Where the row m of A begins. Rows past the end repeat the last, and their sums are not written.
fn a_row(batch: u32, m: u32) -> u32 {
    return params.a_from + batch * params.a_batch + address(min(m, params.m - 1u), A_M12, A_M2, params.a_m);
}

fn b_column(batch: u32, n: u32) -> u32 {
    return params.b_from + batch * params.b_batch + address(min(n, params.n - 1u), B_N12, B_N2, params.b_n);
}

// Of the rows m to m + 3. Where they are a stride apart, `load_a` adds it: one register in place of four.
fn a_rows(batch: u32, m: u32) -> vec4<u32> {
    let first = a_row(batch, m);
    if (A_EVEN) {
        return vec4<u32>(first);
    }
    return vec4<u32>(first, a_row(batch, m + 1u), a_row(batch, m + 2u), a_row(batch, m + 3u));
}

fn b_columns(batch: u32, n: u32) -> vec4<u32> {
    let first = b_column(batch, n);
    if (B_EVEN) {
        return vec4<u32>(first);
    }
    return vec4<u32>(first, b_column(batch, n + 1u), b_column(batch, n + 2u), b_column(batch, n + 3u));
}

// Past the end of k the last element is read, and zero taken in its place.
fn inside(k: u32, end: u32) -> u32 {
    if (K_EVEN == 1u) {
        return k;
    }
    return min(k, end - 1u);
}

fn load_a(rows: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    var at = rows + address(inside(k, end), A_K12, A_K2, params.a_k);
    if (A_EVEN) {
        at += FOUR * params.a_m.z;
    }
    let value = vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]);
    return select(vec4<f32>(), value, K_EVEN == 1u || k < end);
}

fn load_b(columns: vec4<u32>, k: u32, end: u32) -> vec4<f32> {
    var at = columns + address(inside(k, end), B_K12, B_K2, params.b_k);
    if (B_EVEN) {
        at += FOUR * params.b_n.z;
    }
    let value = vec4<f32>(b[at.x], b[at.y], b[at.z], b[at.w]);
    return select(vec4<f32>(), value, K_EVEN == 1u || k < end);
}

// Offsets of the rows m to m + 3 in C.
fn c_rows(m: u32) -> vec4<u32> {
    let first = address(m, C_M12, C_M2, params.c_m);
    if (C_M_EVEN) {
        return first + FOUR * params.c_m.z;
    }
    return vec4<u32>(
        first,
        address(m + 1u, C_M12, C_M2, params.c_m),
        address(m + 2u, C_M12, C_M2, params.c_m),
        address(m + 3u, C_M12, C_M2, params.c_m),
    );
}

fn c_columns(n: u32) -> vec4<u32> {
    let first = address(n, C_N12, C_N2, params.c_n);
    if (C_N_EVEN) {
        return first + FOUR * params.c_n.z;
    }
    return vec4<u32>(
        first,
        address(n + 1u, C_N12, C_N2, params.c_n),
        address(n + 2u, C_N12, C_N2, params.c_n),
        address(n + 3u, C_N12, C_N2, params.c_n),
    );
}

// Four sums of the row m, from the column n on.
fn store_four(task: Task, m: u32, n: u32, at: vec4<u32>, mirrored: vec4<u32>, sums: vec4<f32>) {
    store_one(task, m, n, at.x, mirrored.x, sums.x);
    store_one(task, m, n + 1u, at.y, mirrored.y, sums.y);
    store_one(task, m, n + 2u, at.z, mirrored.z, sums.z);
    store_one(task, m, n + 3u, at.w, mirrored.w, sums.w);
}

// As `store`, where it is known whether C is symmetric.
fn store_one(task: Task, m: u32, n: u32, at: u32, mirrored: u32, sum: f32) {
    if (m >= params.m || n >= params.n || (SYMMETRIC == 1u && n > m)) {
        return;
    }
    let value = finished(task.batch, m, n, sum);
    let base = params.c_from + task.split * params.c_split + task.batch * params.c_batch;
    c[base + at] = value;
    if (SYMMETRIC == 1u && n < m) {
        c[base + mirrored] = value;
    }
}

// <generated>
// Tiles of 16x16, 4 deep; 16 invocations of 4x4.
var<workgroup> tile_a: array<array<array<vec4<f32>, 5>, 1>, 4>;
var<workgroup> tile_b: array<array<array<vec4<f32>, 5>, 1>, 4>;

@compute @workgroup_size(16)
fn tiled_16x16x4(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let task = task_of(linear_workgroup(workgroup, workgroups));
    let m0 = task.tile_m * 16u;
    let n0 = task.tile_n * 16u;
    // The same for the whole workgroup.
    if (is_idle(task, m0, 16u, n0)) {
        return;
    }
    let first = task.split * params.k_per_split;
    let end = min(first + params.k_per_split, params.k.x * params.k.y * params.k.z);
    let tx = index % 4u + params._0;
    let ty = index / 4u + params._0;
    // What this invocation brings to the tiles: along k, along m (n), and where it begins.
    let a0_k = select(index / 4u, index % 4u, A_ALONG_K == 1u);
    let a0_v = select(index % 4u, index / 4u, A_ALONG_K == 1u);
    let a0_group = a0_v / 4u;
    let a0_lane = a0_v % 4u + params._0;
    let a0_at = a_rows(task.batch, m0 + a0_v * 4u);
    let b0_k = select(index / 4u, index % 4u, B_ALONG_K == 1u);
    let b0_v = select(index % 4u, index / 4u, B_ALONG_K == 1u);
    let b0_group = b0_v / 4u;
    let b0_lane = b0_v % 4u + params._0;
    let b0_at = b_columns(task.batch, n0 + b0_v * 4u);
    var s0_0 = vec4<f32>();
    var s1_0 = vec4<f32>();
    var s2_0 = vec4<f32>();
    var s3_0 = vec4<f32>();
    for (var k = first; k < end; k += 4u) {
        let a0 = load_a(a0_at, k + a0_k, end);
        let b0 = load_b(b0_at, k + b0_k, end);
        tile_a[a0_k][a0_group][a0_lane] = a0;
        tile_b[b0_k][b0_group][b0_lane] = b0;
        workgroupBarrier();
        {
            let x0 = tile_a[0][0][ty];
            let y0 = tile_b[0][0][tx];
            s0_0 = fma(vec4(x0.x), y0, s0_0);
            s1_0 = fma(vec4(x0.y), y0, s1_0);
            s2_0 = fma(vec4(x0.z), y0, s2_0);
            s3_0 = fma(vec4(x0.w), y0, s3_0);
        }
        {
            let x0 = tile_a[1][0][ty];
            let y0 = tile_b[1][0][tx];
            s0_0 = fma(vec4(x0.x), y0, s0_0);
            s1_0 = fma(vec4(x0.y), y0, s1_0);
            s2_0 = fma(vec4(x0.z), y0, s2_0);
            s3_0 = fma(vec4(x0.w), y0, s3_0);
        }
        {
            let x0 = tile_a[2][0][ty];
            let y0 = tile_b[2][0][tx];
            s0_0 = fma(vec4(x0.x), y0, s0_0);
            s1_0 = fma(vec4(x0.y), y0, s1_0);
            s2_0 = fma(vec4(x0.z), y0, s2_0);
            s3_0 = fma(vec4(x0.w), y0, s3_0);
        }
        {
            let x0 = tile_a[3][0][ty];
            let y0 = tile_b[3][0][tx];
            s0_0 = fma(vec4(x0.x), y0, s0_0);
            s1_0 = fma(vec4(x0.y), y0, s1_0);
            s2_0 = fma(vec4(x0.z), y0, s2_0);
            s3_0 = fma(vec4(x0.w), y0, s3_0);
        }
        workgroupBarrier();
    }
    let m_0 = m0 + (ty + 0u) * 4u;
    let n_0 = n0 + (tx + 0u) * 4u;
    let rows_0 = c_rows(m_0);
    let columns_0 = c_columns(n_0);
    // Of the mirrored elements.
    let columns_of_m_0 = c_columns(m_0);
    let rows_of_n_0 = c_rows(n_0);
    store_four(task, m_0 + 0u, n_0, rows_0.x + columns_0, columns_of_m_0.x + rows_of_n_0, s0_0);
    store_four(task, m_0 + 1u, n_0, rows_0.y + columns_0, columns_of_m_0.y + rows_of_n_0, s1_0);
    store_four(task, m_0 + 2u, n_0, rows_0.z + columns_0, columns_of_m_0.z + rows_of_n_0, s2_0);
    store_four(task, m_0 + 3u, n_0, rows_0.w + columns_0, columns_of_m_0.w + rows_of_n_0, s3_0);
}
// </generated>
