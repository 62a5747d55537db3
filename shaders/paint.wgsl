// Numbers as colours: tiles of a tensor in a grid, each pixel as a word with red in its lowest byte.
// Each invocation paints one pixel. Places are (row, column), as .x and .y. What a tile shows is the mean of the numbers that the pixel
// covers, or the nearest one where it covers less than one.

#import grid

struct Params {
    tiles: u32,
    columns: u32,
    gap: u32,
    channels: u32,
    // Of a tile, in numbers and in pixels: rows, columns.
    size: vec2<u32>,
    pixels: vec2<u32>,
    // Distances between numbers: of tiles, channels, rows, columns.
    strides: vec4<u32>,
    // 1: each tile has its own range.
    own_range: u32,
    height: u32,
    // Pixels from row to row of the picture.
    row: u32,
    background: u32,
}

// 1: colours for signs, blue below zero and red above; 0: black to white.
const SIGNED: u32 = 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> ranges: array<f32>;
@group(0) @binding(3) var<storage, read_write> picture: array<u32>;

fn colour_of_sign(level: f32) -> vec3<f32> {
    let size = abs(2.0 * level - 1.0);
    let full = select(vec3<f32>(0.02, 0.19, 0.58), vec3<f32>(0.70, 0.03, 0.10), level > 0.5);
    // Half the way is a clear blue or red, so that small values show.
    let half = select(vec3<f32>(0.42, 0.66, 0.95), vec3<f32>(0.97, 0.58, 0.42), level > 0.5);
    let outer = mix(half, full, 2.0 * size - 1.0);
    return select(mix(vec3<f32>(1.0), half, 2.0 * size), outer, size > 0.5);
}

// From 0 to 1 between the ends of the range; ranges of no length are 0, and NaN is.
fn level_of(sum: f32, count: f32, low: f32, high: f32) -> f32 {
    let span = select(1.0, high - low, high > low);
    let level = (sum / count - low) / span;
    return select(0.0, clamp(level, 0.0, 1.0), level == level);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.height * params.row) {
        return;
    }
    let at = vec2<u32>(i / params.row, i % params.row);
    let place = at / (params.pixels + params.gap);
    let inside = at - place * (params.pixels + params.gap);
    let tile = place.x * params.columns + place.y;
    if (place.y >= params.columns || tile >= params.tiles || any(inside >= params.pixels)) {
        picture[i] = params.background;
        return;
    }
    let first = inside * params.size / params.pixels;
    let end = max(first + 1u, (inside + 1u) * params.size / params.pixels);
    let count = f32((end.x - first.x) * (end.y - first.y));
    let range = 2u * select(0u, tile, params.own_range == 1u);
    let low = ranges[range];
    let high = ranges[range + 1u];
    var colour = vec3<f32>(0.0);
    for (var channel = 0u; channel < params.channels; channel++) {
        var sum = 0.0;
        for (var row = first.x; row < end.x; row++) {
            let start = tile * params.strides.x + channel * params.strides.y + row * params.strides.z;
            for (var column = first.y; column < end.y; column++) {
                sum += x[start + column * params.strides.w];
            }
        }
        let level = level_of(sum, count, low, high);
        if (params.channels == 3u) {
            colour[channel] = level;
        } else if (SIGNED == 1u) {
            colour = colour_of_sign(level);
        } else {
            colour = vec3<f32>(level);
        }
    }
    let bytes = vec3<u32>(round(colour * 255.0));
    picture[i] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | 0xff000000u;
}
