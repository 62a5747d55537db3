// The product of contraction.wgsl for adapters that run on the CPU eight invocations at a time
// (lavapipe: one vector register is one subgroup).
//
// What lavapipe 25 makes of a kernel (its code, with `perf` and a disassembler) decides:
// - A load is one scalar load for each invocation, with a test of the invocation's mask and of the
//   bounds: 15 instructions a number, 13 where it loads vectors of four. Addresses that a workgroup
//   shares make no difference (only constant ones would).
// - A product and sum are two instructions (lavapipe has no `fma`), more where the sum lies in memory.
// - Every variable that a loop changes is blended with the mask at the loop's end: a load, a blend and a
//   store for each sum, as much as the product itself.
// - The loop must fit the 32 KB of instructions that a core caches.
// So a workgroup is one subgroup and covers 32x32 of C, each invocation all 32 rows of 4 columns of its
// own, and takes k four at a time: the blends cost a quarter, and loads are vectors where A and B have
// such along k (ALONG_K) or across it (ACROSS), or where they were packed so. Of A, invocation i loads
// every eighth row and broadcasts it to the others. Loads stand before all products: among them they cut
// the products into blocks between which sums go through memory.
//
// Measured on 2 cores with AVX-512VL, lavapipe 25.0.7, GFLOP/s by processor time on a busy machine
// (multiply-add peak 103), 512^3 / 960^3 with packing / a 3x3 convolution 64-128 / its weight gradient:
// one k at a time, as it was 31 / 40 / 43 / 42 (1024^3: 26, its rows of 4 KB share the lines of the
// caches). Four at a time, nothing packed 42 / - / 44 / 46, A packed 45 / 45 / - / -, both 50 / 60 / 51 /
// 51 (1024^3: 61). Other blocks, both packed, for 960^3: 16x4 an invocation 51, 16x6 53, 24x4 57, 24x5 59,
// 32x3 56, 32x5 52, 40x4 51; for 512^3 where 32x4 has 47: 64x4 43, 32x8 40, 64x8 42 (the loop is too long,
// and takes 3 to 9 seconds to compile, 32x4 .5). Loads of A before those of B 51; loads of 8 rows, then
// their products, and so on 41 of 45.
//
// Before, with one k at a time on another processor: `direct` in arrays 18 / 16 / 19 (512^3, convolution,
// gradient), in named sums 22 / 17 / 22; with broadcasts, 8x8 an invocation 29 / 22 / 30, 16x4 37 / 28 / 40,
// 16x8 42 / 31 / 46, 16x16 45 / 35 / 45, 32x4 43 / 33 / 50; with one loop over k rather than three, 32x4 41 /
// 41 / 52. Subgroups of 16 (Mesa 26.2 with LP_NATIVE_VECTOR_WIDTH=512) would need a kernel of their own.

#import grid
#import contraction
#import nan

const BIAS: u32 = 0u;

// How A lies in memory: LOOSE is single numbers, ALONG_K vectors of four along k, ACROSS vectors of four
// along m (n for B), PACKED what contraction_pack.wgsl wrote.
const LOOSE: u32 = 0u;
const ALONG_K: u32 = 1u;
const PACKED: u32 = 2u;
const ACROSS: u32 = 3u;
const A_LIES: u32 = 0u;
const B_LIES: u32 = 0u;

// A and B once more, or what was packed of them, in vectors.
@group(0) @binding(5) var<storage, read_write> a4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> b4: array<vec4<f32>>;

// Four steps along k: whether there are so many, and where they are.
struct Four {
    k: u32,
    there: vec4<bool>,
    a: vec4<u32>,
    b: vec4<u32>,
}

fn start_of_a(task: Task, m: u32) -> u32 {
    if (A_LIES == PACKED) {
        return panel_of(task.batch, params.tiles_m, m);
    }
    return row_of_a(task.batch, m);
}

fn start_of_b(task: Task, n: u32) -> u32 {
    if (B_LIES == PACKED) {
        return panel_of(task.batch, params.tiles_n, n - params.first_tile_n * 32u);
    }
    return column_of_b(task.batch, n);
}

fn panel_of(batch: u32, tiles: u32, i: u32) -> u32 {
    return (batch * tiles + i / 32u) * params.packed_quads * 32u + i % 32u;
}

// Four numbers of a row of A along k.
fn along_a(start: u32, four: Four) -> vec4<f32> {
    if (A_LIES == PACKED) {
        return a4[start + (four.k - params.packed_from) * 8u];
    }
    if (A_LIES == ALONG_K) {
        return a4[(start + four.a.x) / 4u];
    }
    let at = start + four.a;
    return select(vec4<f32>(), vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]), four.there);
}

fn along_b(start: u32, four: Four) -> vec4<f32> {
    if (B_LIES == PACKED) {
        return b4[start + (four.k - params.packed_from) * 8u];
    }
    if (B_LIES == ALONG_K) {
        return b4[(start + four.b.x) / 4u];
    }
    let at = start + four.b;
    return select(vec4<f32>(), vec4<f32>(b[at.x], b[at.y], b[at.z], b[at.w]), four.there);
}

// Four rows of A, and four columns of B: a vector of them for each step along k.
fn across_a(start: u32, four: Four) -> mat4x4<f32> {
    let at = (start + four.a) / 4u;
    let zero = vec4<f32>();
    return mat4x4<f32>(
        a4[at.x],
        select(zero, a4[at.y], four.there.y),
        select(zero, a4[at.z], four.there.z),
        select(zero, a4[at.w], four.there.w),
    );
}

fn across_b(start: u32, four: Four) -> mat4x4<f32> {
    let at = (start + four.b) / 4u;
    let zero = vec4<f32>();
    return mat4x4<f32>(
        b4[at.x],
        select(zero, b4[at.y], four.there.y),
        select(zero, b4[at.z], four.there.z),
        select(zero, b4[at.w], four.there.w),
    );
}

// s + x.x * y[0] + ... + x.w * y[3], in this order.
fn add(s: vec4<f32>, x: vec4<f32>, y: mat4x4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), y[3], fma(vec4(x.z), y[2], fma(vec4(x.y), y[1], fma(vec4(x.x), y[0], s))));
}

@compute @workgroup_size(8)
fn direct_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var task = task_of(linear_workgroup(workgroup, workgroups));
    task.split += params.first_split;
    let m0 = task.tile_m * 32u;
    let n_tile = (task.tile_n + params.first_tile_n) * 32u;
    let n0 = n_tile + lane * 4u;
    // The same for the whole subgroup: broadcasts need all of it.
    if (is_idle(task, m0, 32u, n_tile)) {
        return;
    }
    // Invocation i has rows i, i + 8, i + 16 and i + 24; or, ACROSS, 4 i to 4 i + 3.
    let a0 = start_of_a(task, m0 + select(lane, lane * 4u, A_LIES == ACROSS));
    let a8 = start_of_a(task, m0 + 8u + lane);
    let a16 = start_of_a(task, m0 + 16u + lane);
    let a24 = start_of_a(task, m0 + 24u + lane);
    let b0 = start_of_b(task, n0);
    let b1 = start_of_b(task, n0 + 1u);
    let b2 = start_of_b(task, n0 + 2u);
    let b3 = start_of_b(task, n0 + 3u);
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
    for (var k = first; k < end; k += 4u) {
        let walk1 = walk_on(walk);
        let walk2 = walk_on(walk1);
        let walk3 = walk_on(walk2);
        let four = Four(
            k,
            vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4(end),
            vec4<u32>(walk.a, walk1.a, walk2.a, walk3.a),
            vec4<u32>(walk.b, walk1.b, walk2.b, walk3.b),
        );
        var y: mat4x4<f32>;
        if (B_LIES == ACROSS) {
            y = across_b(b0, four);
        } else {
            y = transpose(mat4x4<f32>(along_b(b0, four), along_b(b1, four), along_b(b2, four), along_b(b3, four)));
        }
        var x: mat4x4<f32>;
        if (A_LIES == ACROSS) {
            x = transpose(across_a(a0, four));
        } else {
            x = mat4x4<f32>(along_a(a0, four), along_a(a8, four), along_a(a16, four), along_a(a24, four));
        }
        let x0 = x[0];
        let x1 = x[1];
        let x2 = x[2];
        let x3 = x[3];
        s0 = add(s0, subgroupBroadcast(x0, 0u), y);
        s1 = add(s1, subgroupBroadcast(x0, 1u), y);
        s2 = add(s2, subgroupBroadcast(x0, 2u), y);
        s3 = add(s3, subgroupBroadcast(x0, 3u), y);
        s4 = add(s4, subgroupBroadcast(x0, 4u), y);
        s5 = add(s5, subgroupBroadcast(x0, 5u), y);
        s6 = add(s6, subgroupBroadcast(x0, 6u), y);
        s7 = add(s7, subgroupBroadcast(x0, 7u), y);
        s8 = add(s8, subgroupBroadcast(x1, 0u), y);
        s9 = add(s9, subgroupBroadcast(x1, 1u), y);
        s10 = add(s10, subgroupBroadcast(x1, 2u), y);
        s11 = add(s11, subgroupBroadcast(x1, 3u), y);
        s12 = add(s12, subgroupBroadcast(x1, 4u), y);
        s13 = add(s13, subgroupBroadcast(x1, 5u), y);
        s14 = add(s14, subgroupBroadcast(x1, 6u), y);
        s15 = add(s15, subgroupBroadcast(x1, 7u), y);
        s16 = add(s16, subgroupBroadcast(x2, 0u), y);
        s17 = add(s17, subgroupBroadcast(x2, 1u), y);
        s18 = add(s18, subgroupBroadcast(x2, 2u), y);
        s19 = add(s19, subgroupBroadcast(x2, 3u), y);
        s20 = add(s20, subgroupBroadcast(x2, 4u), y);
        s21 = add(s21, subgroupBroadcast(x2, 5u), y);
        s22 = add(s22, subgroupBroadcast(x2, 6u), y);
        s23 = add(s23, subgroupBroadcast(x2, 7u), y);
        s24 = add(s24, subgroupBroadcast(x3, 0u), y);
        s25 = add(s25, subgroupBroadcast(x3, 1u), y);
        s26 = add(s26, subgroupBroadcast(x3, 2u), y);
        s27 = add(s27, subgroupBroadcast(x3, 3u), y);
        s28 = add(s28, subgroupBroadcast(x3, 4u), y);
        s29 = add(s29, subgroupBroadcast(x3, 5u), y);
        s30 = add(s30, subgroupBroadcast(x3, 6u), y);
        s31 = add(s31, subgroupBroadcast(x3, 7u), y);
        walk = walk_on(walk3);
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
            let sum = sums[select(i, i % 4u * 8u + i / 4u, A_LIES == ACROSS)][j];
            store(task, m0 + i, n0 + j, row.at + columns[j], rows[j] + column.at, sum);
        }
        row = next_row_of_c(row);
        column = next_column_of_c(column);
    }
}
