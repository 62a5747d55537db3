// Parameters, bindings and addresses of the kernels in contraction.wgsl and
// contraction_subgroup.wgsl. src/ops/contraction.rs defines what they compute. Constants that the
// host sets stand in those files: BIAS is 0 for none, 1 for one value a row, 2 for one a column, 3 for
// one an element.

struct Params {
    m: u32,
    n: u32,
    batch: u32,
    splits: u32,
    k: vec3<u32>,
    // Of the flattened k, for one split.
    k_per_split: u32,
    a_k: vec3<u32>,
    a_batch: u32,
    b_k: vec3<u32>,
    b_batch: u32,
    a_m: vec3<u32>,
    c_batch: u32,
    b_n: vec3<u32>,
    c_split: u32,
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

@group(0) @binding(0) var<uniform> params: Params;
// B stands last because `add_parts` has none. Without a bias, any buffer is bound for it.
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> b: array<f32>;

fn offset(i: u32, extents: vec2<u32>, strides: vec3<u32>) -> u32 {
    let upper = i / extents.y;
    let top = upper / extents.x;
    let at = vec3<u32>(top, upper - top * extents.x, i - upper * extents.y) * strides;
    return at.x + at.y + at.z;
}

fn row_of_a(batch: u32, m: u32) -> u32 {
    return batch * params.a_batch + offset(min(m, params.m - 1u), params.m_extents, params.a_m);
}

fn column_of_b(batch: u32, n: u32) -> u32 {
    return batch * params.b_batch + offset(min(n, params.n - 1u), params.n_extents, params.b_n);
}

fn row_of_c(m: u32) -> u32 {
    return offset(m, params.m_extents, params.c_m);
}

fn column_of_c(n: u32) -> u32 {
    return offset(n, params.n_extents, params.c_n);
}

// Where a workgroup is: its batch element, its part of k and its tile of C.
struct Task {
    batch: u32,
    split: u32,
    tile_m: u32,
    tile_n: u32,
}

fn task_of(index: u32) -> Task {
    let tile = index % (params.tiles_m * params.tiles_n);
    let rest = index / (params.tiles_m * params.tiles_n);
    var tile_m = tile / params.tiles_n;
    if (params.symmetric == 1u) {
        // Rows of tiles from both ends in turn: the first have few to compute, the last all, and a
        // CPU adapter gives each thread one run of workgroups.
        tile_m = select(tile_m / 2u, params.tiles_m - 1u - tile_m / 2u, tile_m % 2u == 1u);
    }
    return Task(rest / params.splits, rest % params.splits, tile_m, tile % params.tiles_n);
}

// True where nothing is to be done: past the end of the grid, or wholly above the diagonal of a
// symmetric result, which the tiles below it mirror.
fn is_idle(task: Task, m0: u32, rows: u32, n0: u32) -> bool {
    return task.batch >= params.batch || (params.symmetric == 1u && n0 >= m0 + rows);
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
    } else if (BIAS == 3u) {
        value += bias[(batch * params.m + m) * params.n + n];
    }
    return value;
}

// Writes one element if it exists; `row` and `column` are those of C at m and n.
fn store(task: Task, m: u32, n: u32, row: u32, column: u32, sum: f32) {
    if (m >= params.m || n >= params.n || (params.symmetric == 1u && n > m)) {
        return;
    }
    let value = finished(task.batch, m, n, sum);
    let base = task.split * params.c_split + task.batch * params.c_batch;
    c[base + row + column] = value;
    if (params.symmetric == 1u && n < m) {
        c[base + row_of_c(n) + column_of_c(m)] = value;
    }
}

// A walk along the flattened k: the parts of the addresses that depend on it. Stepping takes no
// division, and one loop rather than three: loops of 3 taps would cost more than they compute.
struct Walk {
    k1: u32,
    k2: u32,
    a: u32,
    b: u32,
}

fn walk_from(k: u32) -> Walk {
    let upper = k / params.k.z;
    let k2 = k - upper * params.k.z;
    let k0 = upper / params.k.y;
    let k1 = upper - k0 * params.k.y;
    let at_a = vec3<u32>(k0, k1, k2) * params.a_k;
    let at_b = vec3<u32>(k0, k1, k2) * params.b_k;
    return Walk(k1, k2, at_a.x + at_a.y + at_a.z, at_b.x + at_b.y + at_b.z);
}

fn walk_on(walk: Walk) -> Walk {
    let back2 = params.k.z - 1u;
    let back1 = params.k.y - 1u;
    let wrap2 = walk.k2 == back2;
    let wrap1 = wrap2 && walk.k1 == back1;
    // Differences wrap around 32 bits and so do the sums: the result is right.
    let a2 = params.a_k.y - back2 * params.a_k.z;
    let b2 = params.b_k.y - back2 * params.b_k.z;
    let a1 = params.a_k.x - back1 * params.a_k.y - back2 * params.a_k.z;
    let b1 = params.b_k.x - back1 * params.b_k.y - back2 * params.b_k.z;
    return Walk(
        select(select(walk.k1, walk.k1 + 1u, wrap2), 0u, wrap1),
        select(walk.k2 + 1u, 0u, wrap2),
        walk.a + select(select(params.a_k.z, a2, wrap2), a1, wrap1),
        walk.b + select(select(params.b_k.z, b2, wrap2), b1, wrap1),
    );
}
