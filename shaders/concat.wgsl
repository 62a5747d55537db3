// Up to four tensors side by side in the concatenation. A tensor is seen as [outer, part]; each
// invocation copies one element, or one vector of four where all places are in vectors.

#import grid

struct Params {
    // In elements, or in vectors.
    len: u32,
    // Of these tensors, and of the whole output, for one outer index.
    joined: u32,
    whole: u32,
    // Where these tensors begin in the whole.
    offset: u32,
    // Of each for one outer index; 0 for what is not there.
    parts: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x0: array<f32>;
@group(0) @binding(2) var<storage, read_write> x1: array<f32>;
@group(0) @binding(3) var<storage, read_write> x2: array<f32>;
@group(0) @binding(4) var<storage, read_write> x3: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> x0_vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x1_vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x2_vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x3_vectors: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y_vectors: array<vec4<f32>>;

// Which tensor, and where in it and in the output.
struct Place {
    tensor: u32,
    source: u32,
    target_at: u32,
}

fn place_of(i: u32) -> Place {
    let outer = i / params.joined;
    let at = i - outer * params.joined;
    let parts = params.parts;
    let first = outer * parts + at;
    let to = outer * params.whole + params.offset + at;
    if (at < parts.x) {
        return Place(0u, first.x, to);
    } else if (at < parts.x + parts.y) {
        return Place(1u, first.y - parts.x, to);
    } else if (at < parts.x + parts.y + parts.z) {
        return Place(2u, first.z - parts.x - parts.y, to);
    }
    return Place(3u, first.w - parts.x - parts.y - parts.z, to);
}

@compute @workgroup_size(64)
fn elements(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.len) {
        return;
    }
    let place = place_of(i);
    switch (place.tensor) {
        case 0u: { y[place.target_at] = x0[place.source]; }
        case 1u: { y[place.target_at] = x1[place.source]; }
        case 2u: { y[place.target_at] = x2[place.source]; }
        default: { y[place.target_at] = x3[place.source]; }
    }
}

@compute @workgroup_size(64)
fn vectors(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.len) {
        return;
    }
    let place = place_of(i);
    switch (place.tensor) {
        case 0u: { y_vectors[place.target_at] = x0_vectors[place.source]; }
        case 1u: { y_vectors[place.target_at] = x1_vectors[place.source]; }
        case 2u: { y_vectors[place.target_at] = x2_vectors[place.source]; }
        default: { y_vectors[place.target_at] = x3_vectors[place.source]; }
    }
}
