//! WGSL of the contraction's kernels for GPUs: one for each size of tile, written out.
//!
//! A workgroup computes `tile.m` x `tile.n` of C, `tile.k` of k at a time: its invocations read that part
//! of A and B into workgroup memory, four neighbours along m (n) to a vector, and multiply what is there,
//! each for `tile.outputs` rows and as many columns of its own, in groups of four that lie
//! `tile.m / tile.outputs` groups apart. `shaders/contraction_tiled.wgsl` has the text of the smallest tile as an
//! example, and the functions that it calls.
//!
//! Why it is written out, where a loop would be shorter (docs/benchmarks.md has what compilers for five
//! GPUs make of it):
//! - wgpu gives every loop a counter of its own, so that none can be endless. Compilers then unroll a loop with
//!   all its exits left in, and keep an array that it indexes in memory: of what such a kernel issued
//!   on NVIDIA's Ampere, 23 % were multiply-adds. The only loop is the one over k, and sums have names.
//! - The first two indices into a tile are constants and the last does not change in the loop, so that
//!   naga's checks of indices leave it and addresses become offsets of load instructions.
//! - A compiler that sees that the padding of a tile is never used takes it out. Adding a
//!   zero that it does not know (`params._0`) keeps it.

use crate::graph::tiles::Tile;
use crate::ops::pointwise::insert_generated;

const SOURCE: &str = include_str!("../../shaders/contraction_tiled.wgsl");

/// The WGSL of `tile`'s kernel, before imports and constants are put in. Its entry point is
/// [`Tile::entry`].
pub(super) fn source(tile: &Tile) -> String {
    insert_generated(SOURCE, &kernel(tile))
}

/// One operand's part of the text.
struct Side {
    /// `a` or `b`.
    name: &'static str,
    /// The function that says where four rows (columns) begin, and the first of the tile.
    places: &'static str,
    origin: &'static str,
    /// The constant that says which way it is read.
    along_k: &'static str,
    /// This invocation's place along m (n).
    lane: &'static str,
    /// Invocations along m (n).
    width: u32,
    /// Vectors along m (n).
    vectors: u32,
    /// Vectors that an invocation reads, of the whole tile's.
    loads: u32,
}

impl Tile {
    fn sides(&self) -> [Side; 2] {
        let side = |[name, places, origin, along_k, lane]: [&'static str; 5], extent: u32| Side {
            name,
            places,
            origin,
            along_k,
            lane,
            width: extent / self.outputs,
            vectors: extent / 4,
            loads: extent / 4 * self.k / self.invocations(),
        };
        [
            side(["a", "a_rows", "m0", "A_ALONG_K", "ty"], self.m),
            side(["b", "b_columns", "n0", "B_ALONG_K", "tx"], self.n),
        ]
    }
}

/// Declarations of workgroup memory and the entry point.
fn kernel(tile: &Tile) -> String {
    let Tile {
        entry,
        m,
        n,
        k,
        outputs,
        ..
    } = *tile;
    let (invocations, groups) = (tile.invocations(), outputs / 4);
    let zero = if tile.padded { " + params._0" } else { "" };
    let sides = tile.sides();
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };

    line(format!(
        "// Tiles of {m}x{n}, {k} deep; {invocations} invocations of {outputs}x{outputs}."
    ));
    for Side { name, width, .. } in &sides {
        let width = width + u32::from(tile.padded);
        line(format!(
            "var<workgroup> tile_{name}: array<array<array<vec4<f32>, {width}>, {groups}>, {k}>;"
        ));
    }
    line(format!(
        "\n@compute @workgroup_size({invocations})\nfn {entry}("
    ));
    line("    @builtin(workgroup_id) workgroup: vec3<u32>,".into());
    line("    @builtin(num_workgroups) workgroups: vec3<u32>,".into());
    line("    @builtin(local_invocation_index) index: u32,\n) {".into());
    line("    let task = task_of(linear_workgroup(workgroup, workgroups));".into());
    line(format!(
        "    let m0 = task.tile_m * {m}u;\n    let n0 = task.tile_n * {n}u;"
    ));
    line("    // The same for the whole workgroup.".into());
    line(format!(
        "    if (is_idle(task, m0, {m}u, n0)) {{\n        return;\n    }}"
    ));
    line("    let first = task.split * params.k_per_split;".into());
    line(
        "    let end = min(first + params.k_per_split, params.k.x * params.k.y * params.k.z);"
            .into(),
    );
    let columns = sides[1].width;
    line(format!(
        "    let tx = index % {columns}u{zero};\n    let ty = index / {columns}u{zero};"
    ));

    line("    // What this invocation brings to the tiles: along k, along m (n), and where it begins.".into());
    for Side {
        name,
        places,
        origin,
        along_k,
        width,
        vectors,
        loads,
        ..
    } in &sides
    {
        for i in 0..*loads {
            let v = format!("{name}{i}");
            let index = match i {
                0 => "index".to_string(),
                _ => format!("(index + {}u)", i * invocations),
            };
            line(format!(
                "    let {v}_k = select({index} / {vectors}u, {index} % {k}u, {along_k} == 1u);"
            ));
            line(format!(
                "    let {v}_v = select({index} % {vectors}u, {index} / {k}u, {along_k} == 1u);"
            ));
            line(format!(
                "    let {v}_group = {v}_v / {width}u;\n    let {v}_lane = {v}_v % {width}u{zero};"
            ));
            line(format!(
                "    let {v}_at = {places}(task.batch, {origin} + {v}_v * 4u);"
            ));
        }
    }
    for row in 0..outputs {
        for group in 0..groups {
            line(format!("    var s{row}_{group} = vec4<f32>();"));
        }
    }
    let loads = |declare: &str, from: &str| -> Vec<String> {
        let of = |name: &str, i: u32| {
            format!("{declare}{name}{i} = load_{name}({name}{i}_at, {from} + {name}{i}_k, end);")
        };
        let per_side = sides.iter().map(|s| (0..s.loads).map(|i| of(s.name, i)));
        per_side.flatten().collect()
    };
    if tile.prefetch {
        loads("    var ", "first").into_iter().for_each(&mut line);
    }
    line(format!("    for (var k = first; k < end; k += {k}u) {{"));
    if !tile.prefetch {
        loads("        let ", "k").into_iter().for_each(&mut line);
    }
    for Side { name, loads, .. } in &sides {
        for i in 0..*loads {
            let v = format!("{name}{i}");
            line(format!(
                "        tile_{name}[{v}_k][{v}_group][{v}_lane] = {v};"
            ));
        }
    }
    line("        workgroupBarrier();".into());
    if tile.prefetch {
        loads("        ", &format!("k + {k}u"))
            .into_iter()
            .for_each(&mut line);
    }
    for k in 0..k {
        line("        {".into());
        for (x, Side { name, lane, .. }) in ["x", "y"].into_iter().zip(&sides) {
            for group in 0..groups {
                line(format!(
                    "            let {x}{group} = tile_{name}[{k}][{group}][{lane}];"
                ));
            }
        }
        for row in 0..outputs {
            let x = format!("x{}.{}", row / 4, ["x", "y", "z", "w"][row as usize % 4]);
            for group in 0..groups {
                let sum = format!("s{row}_{group}");
                line(format!(
                    "            {sum} = fma(vec4({x}), y{group}, {sum});"
                ));
            }
        }
        line("        }".into());
    }
    line("        workgroupBarrier();\n    }".into());

    for group in 0..groups {
        let [rows, columns] = [0, 1].map(|i| group * sides[i].width);
        line(format!(
            "    let m_{group} = m0 + (ty + {rows}u) * 4u;\n    let n_{group} = n0 + (tx + {columns}u) * 4u;"
        ));
        line(format!(
            "    let rows_{group} = c_rows(m_{group});\n    let columns_{group} = c_columns(n_{group});"
        ));
        line("    // Of the mirrored elements.".into());
        line(format!(
            "    let columns_of_m_{group} = c_columns(m_{group});\n    let rows_of_n_{group} = c_rows(n_{group});"
        ));
    }
    for row in 0..outputs {
        let (of, lane) = (row / 4, ["x", "y", "z", "w"][row as usize % 4]);
        for group in 0..groups {
            line(format!(
                "    store_four(task, m_{of} + {}u, n_{group}, rows_{of}.{lane} + columns_{group}, \
                 columns_of_m_{of}.{lane} + rows_of_n_{group}, s{row}_{group});",
                row % 4
            ));
        }
    }
    line("}".into());
    text
}

/// Loops over one index of one operand, as few as will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loops {
    /// Extent of the two inner loops together, if there are three.
    pub(super) block: Option<usize>,
    /// Extent of the innermost loop, if there are two or three.
    pub(super) row: Option<usize>,
    /// Strides, outermost first.
    pub(super) strides: [usize; 3],
}

impl Loops {
    /// Of loops with these extents and strides, outermost first: those of one round are left out, and those that
    /// follow one another in memory are one.
    pub(super) fn merged(extents: [usize; 3], strides: [usize; 3]) -> Self {
        let mut loops: Vec<(usize, usize)> = Vec::new();
        for (extent, stride) in extents.into_iter().zip(strides) {
            match loops.last_mut() {
                _ if extent == 1 => {}
                Some(outer) if outer.1 == stride * extent => *outer = (outer.0 * extent, stride),
                _ => loops.push((extent, stride)),
            }
        }
        let mut strides = [0; 3];
        for (to, (_, stride)) in strides.iter_mut().rev().zip(loops.iter().rev()) {
            *to = *stride;
        }
        let row = loops.last().map(|inner| inner.0);
        Self {
            block: row.filter(|_| loops.len() == 3).map(|row| row * loops[1].0),
            row: row.filter(|_| loops.len() > 1),
            strides,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::wgsl;

    #[test]
    fn the_shader_file_shows_the_smallest_tile() {
        let smallest = Tile::ALL[Tile::ALL.len() - 1];
        assert_eq!(smallest.name(), "16x16x4");
        let after = SOURCE
            .split_once("// <generated>\n")
            .map_or("", |(_, after)| after);
        let shown = after
            .split_once("// </generated>\n")
            .map_or("", |(shown, _)| shown);
        let written = kernel(&smallest);
        assert!(
            shown == written,
            "between the markers of shaders/contraction_tiled.wgsl belongs\n{written}"
        );
    }

    #[test]
    fn every_tile_is_valid_within_default_limits() {
        for tile in Tile::ALL {
            let name = tile.name();
            for side in tile.sides() {
                assert_eq!(
                    side.vectors * tile.k,
                    side.loads * tile.invocations(),
                    "{name}"
                );
                assert!(
                    side.loads > 0 && side.vectors == side.width * tile.outputs / 4,
                    "{name}"
                );
            }
            for symmetric in [0, 1] {
                let constants = [
                    ("SYMMETRIC", symmetric),
                    ("A_K2", 9),
                    ("K_EVEN", 1 - symmetric),
                ];
                let text = wgsl::expand(name, &source(&tile), &constants).unwrap();
                let module = wgsl::validate(name, &text).unwrap();
                let [entry] = &module.entry_points[..] else {
                    panic!("{name}: not one entry point");
                };
                assert_eq!(entry.name, tile.entry);
                assert_eq!(entry.workgroup_size, [tile.invocations(), 1, 1]);
                assert!(tile.invocations() <= 256, "{name}");
                let mut layouter = naga::proc::Layouter::default();
                layouter.update(module.to_ctx()).unwrap();
                let variables = module.global_variables.iter().map(|(_, variable)| variable);
                let workgroup = variables.filter(|v| v.space == naga::AddressSpace::WorkGroup);
                let bytes: u32 = workgroup.map(|v| layouter[v.ty].size).sum();
                assert!(
                    bytes > 0 && bytes <= 16 << 10,
                    "{name}: {bytes} bytes of workgroup memory"
                );
            }
            assert_eq!(
                kernel(&tile).matches("for (").count(),
                1,
                "{name}: loops besides that over k"
            );
        }
    }

    #[test]
    fn loops_that_follow_one_another_are_one() {
        let loops = |block, row, strides| Loops {
            block,
            row,
            strides,
        };
        // A matrix; weights of a convolution along (channel, ky, kx); a scalar.
        assert_eq!(
            Loops::merged([1, 1, 7], [0, 0, 3]),
            loops(None, None, [0, 0, 3])
        );
        assert_eq!(
            Loops::merged([5, 3, 3], [9, 3, 1]),
            loops(None, None, [0, 0, 1])
        );
        assert_eq!(
            Loops::merged([1, 1, 1], [4, 2, 1]),
            loops(None, None, [0, 0, 0])
        );
        // An image along (channel, ky, kx), a 1x1 kernel, and positions of images that are dense.
        assert_eq!(
            Loops::merged([5, 3, 2], [99, 11, 1]),
            loops(Some(6), Some(2), [99, 11, 1])
        );
        assert_eq!(
            Loops::merged([5, 1, 1], [99, 11, 1]),
            loops(None, None, [0, 0, 99])
        );
        assert_eq!(
            Loops::merged([2, 4, 6], [240, 6, 1]),
            loops(None, Some(24), [0, 240, 1])
        );
        // The same address for the outer loop: a broadcast is no loop that goes on.
        assert_eq!(
            Loops::merged([2, 1, 6], [0, 6, 1]),
            loops(None, Some(6), [0, 0, 1])
        );
    }

    /// Every flat index has the address that three plain loops have.
    #[test]
    fn merged_loops_have_the_same_addresses() {
        let cases = [
            ([2, 3, 4], [100, 20, 3]),
            ([2, 3, 4], [12, 4, 1]),
            ([2, 3, 4], [50, 4, 1]),
            ([2, 3, 4], [24, 8, 1]),
            ([1, 3, 4], [0, 9, 2]),
            ([3, 1, 4], [7, 3, 1]),
            ([3, 4, 1], [7, 3, 1]),
            ([2, 3, 4], [0, 0, 0]),
        ];
        for (extents, strides) in cases {
            let merged = Loops::merged(extents, strides);
            for i in 0..extents.iter().product() {
                let inner = extents[2];
                let plain = i / inner / extents[1] * strides[0]
                    + i / inner % extents[1] * strides[1]
                    + i % inner * strides[2];
                let (mut rest, mut at) = (i, 0);
                if let Some(block) = merged.block {
                    at += rest / block * merged.strides[0];
                    rest %= block;
                }
                if let Some(row) = merged.row {
                    at += rest / row * merged.strides[1];
                    rest %= row;
                }
                assert_eq!(
                    at + rest * merged.strides[2],
                    plain,
                    "{extents:?} {strides:?} {i}"
                );
            }
        }
    }
}
