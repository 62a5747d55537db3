// Operands of contraction_subgroup.wgsl in the order in which it reads them: for each batch element and
// tile of 32 rows of A (or columns of B), vectors of four along k, those of the 32 rows side by side.
// Zeros follow the last of k. The operand stands for A here, whichever it is.

#import grid
#import contraction
#import nan

@group(0) @binding(2) var<storage, read_write> panels: array<vec4<f32>>;

// Used by none here.
const BIAS: u32 = 0u;

const AT_ONCE: u32 = 32u;

// A workgroup packs AT_ONCE vectors of each of the 32 rows of a tile, an invocation those of four rows: the
// walk along k is the same for all (one row an invocation takes 1.3 times as long on lavapipe).
@compute @workgroup_size(8)
fn pack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let k_len = params.k.x * params.k.y * params.k.z;
    let quads = params.packed_quads;
    let chunks = (quads + AT_ONCE - 1u) / AT_ONCE;
    let index = linear_workgroup(workgroup, workgroups);
    let chunk = index % chunks;
    let tile = (index / chunks) % params.tiles_m;
    let batch = index / (chunks * params.tiles_m);
    if (batch >= params.batch) {
        return;
    }
    let row = (params.first_tile_n + tile) * 32u + lane;
    let row0 = row_of_a(batch, row);
    let row8 = row_of_a(batch, row + 8u);
    let row16 = row_of_a(batch, row + 16u);
    let row24 = row_of_a(batch, row + 24u);
    let first = chunk * AT_ONCE;
    let end = min(first + AT_ONCE, quads);
    var walk = walk_from(params.packed_from + first * 4u);
    var at = ((batch * params.tiles_m + tile) * quads + first) * 32u + lane;
    for (var quad = first; quad < end; quad++) {
        let walk1 = walk_on(walk);
        let walk2 = walk_on(walk1);
        let walk3 = walk_on(walk2);
        let k = params.packed_from + quad * 4u;
        let there = vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4(k_len);
        let along_k = vec4<u32>(walk.a, walk1.a, walk2.a, walk3.a);
        panels[at] = four_of_a(along_k + row0, there);
        panels[at + 8u] = four_of_a(along_k + row8, there);
        panels[at + 16u] = four_of_a(along_k + row16, there);
        panels[at + 24u] = four_of_a(along_k + row24, there);
        walk = walk_on(walk3);
        at += 32u;
    }
}

fn four_of_a(at: vec4<u32>, there: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]), there);
}
