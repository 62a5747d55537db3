// Parameters, bindings and addresses of the kernels in contraction.wgsl and
// contraction_subgroup.wgsl. src/ops/contraction.rs defines what they compute. Constants that the
// host sets stand in those files: BIAS is 0 for none, 1 for one value a row, 2 for one a column, 3 for
// one an element.

// 1: the result is max(x, 0).
const RELU: u32 = 0u;

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
    // Where A, B and C begin.
    a_from: u32,
    b_from: u32,
    c_from: u32,
    _1: u32,
    tiles_m: u32,
    tiles_n: u32,
    symmetric: u32,
    // What a dispatch of contraction_subgroup.wgsl or contraction_pack.wgsl does: tiles along n, and splits,
    // from these on. Packed are so many vectors of four along k from `packed_from` on.
    first_tile_n: u32,
    first_split: u32,
    packed_from: u32,
    packed_quads: u32,
    _0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// B stands last because `add_parts` has none. Without a bias, any buffer is bound for it.
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> b: array<f32>;

// A place along m or n, and its offset. CPU adapters divide one invocation at a time: newton_schulz of
// 144 features took 8.9 ms with divisions for every mirrored element and takes 6.6 ms so.
struct Place {
    middle: u32,
    inner: u32,
    at: u32,
}

fn place_of(i: u32, extents: vec2<u32>, strides: vec3<u32>) -> Place {
    let upper = i / extents.y;
    let top = upper / extents.x;
    let middle = upper - top * extents.x;
    let inner = i - upper * extents.y;
    let at = vec3<u32>(top, middle, inner) * strides;
    return Place(middle, inner, at.x + at.y + at.z);
}

// The place after, without a division.
fn next_place(place: Place, extents: vec2<u32>, strides: vec3<u32>) -> Place {
    let last_inner = extents.y - 1u;
    let last_middle = extents.x - 1u;
    let wrap_inner = place.inner == last_inner;
    let wrap_middle = wrap_inner && place.middle == last_middle;
    // Differences wrap around 32 bits and so do the sums: the result is right.
    let on_middle = strides.y - last_inner * strides.z;
    let on_top = strides.x - last_middle * strides.y - last_inner * strides.z;
    return Place(
        select(select(place.middle, place.middle + 1u, wrap_inner), 0u, wrap_middle),
        select(place.inner + 1u, 0u, wrap_inner),
        place.at + select(select(strides.z, on_middle, wrap_inner), on_top, wrap_middle),
    );
}

// Rows of A past the end repeat the last.
fn row_of_a(batch: u32, m: u32) -> u32 {
    return params.a_from + batch * params.a_batch + place_of(min(m, params.m - 1u), params.m_extents, params.a_m).at;
}

fn column_of_b(batch: u32, n: u32) -> u32 {
    return params.b_from + batch * params.b_batch + place_of(min(n, params.n - 1u), params.n_extents, params.b_n).at;
}

fn row_of_c(m: u32) -> Place {
    return place_of(m, params.m_extents, params.c_m);
}

fn next_row_of_c(row: Place) -> Place {
    return next_place(row, params.m_extents, params.c_m);
}

fn column_of_c(n: u32) -> Place {
    return place_of(n, params.n_extents, params.c_n);
}

fn next_column_of_c(column: Place) -> Place {
    return next_place(column, params.n_extents, params.c_n);
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
    if (RELU == 1u) {
        value = select(value, 0.0, is_negative(value));
    }
    return value;
}

// Writes one element if it exists, at `at` of C, and in a symmetric C at `mirrored`.
fn store(task: Task, m: u32, n: u32, at: u32, mirrored: u32, sum: f32) {
    if (m >= params.m || n >= params.n || (params.symmetric == 1u && n > m)) {
        return;
    }
    let value = finished(task.batch, m, n, sum);
    let base = params.c_from + task.split * params.c_split + task.batch * params.c_batch;
    c[base + at] = value;
    if (params.symmetric == 1u && n < m) {
        c[base + mirrored] = value;
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
