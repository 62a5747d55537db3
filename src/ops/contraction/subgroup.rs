//! How the kernel of `contraction_subgroup.wgsl` reads its operands: as vectors where they lie so, else
//! packed into vectors by a dispatch before, where enough tiles read them again.
//!
//! There a load costs as much as ten products (see that file), and so does a cache line that is fetched
//! for four bytes. What is packed lies in scratch memory of bounded size. A is packed whole and B in parts
//! along n, each of which is multiplied before the next is packed; or, where A is too large for that, both
//! in parts along k.

use super::{Bias, Contraction, MAX_PARTS_BYTES, SplitOfK, Tiles};
use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Params, Slot, word};

/// Rows and columns of a tile of the kernel.
const TILE: usize = 32;

/// Numbers along k that the kernel takes at once.
pub(super) const DEPTH: usize = 4;

/// Vectors along k of a row that an invocation of `contraction_pack.wgsl` writes.
const PACKED_AT_ONCE: usize = 32;

/// Most bytes of what is packed of one operand at a time; so much stays in the caches.
const MAX_PACKED_BYTES: usize = 4 << 20;

/// Tiles that must read an operand again for its packing to pay. Numbers that lie loose take 1.3 times
/// the time of packed ones, vectors 1.1 times; packing takes .6 of the time that a tile takes with them.
const READERS_OF_LOOSE: usize = 4;
const READERS_OF_VECTORS: usize = 12;

/// Tiles times vectors along k of a product that is worth another dispatch: half a millisecond.
const WORTH_PACKING: usize = 4000;

/// Tiles that keep all threads busy.
const ENOUGH_TILES: usize = 16;

/// Least length of a part of k, so that writing and adding parts costs little.
const LEAST_PART: usize = 256;

/// The shader's `A_LIES` and `B_LIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    Loose = 0,
    AlongK = 1,
    Packed = 2,
    Across = 3,
}

/// One operand: `along` is m or n.
#[derive(Clone, Copy)]
struct Operand {
    slot: Slot,
    len: usize,
    extents: [usize; 2],
    along: [usize; 3],
    k: [usize; 3],
    batch: usize,
    from: usize,
}

/// Parts of k, each to be packed and multiplied before the next, where A is too large to be packed whole.
pub(super) fn split(of: &Contraction, tiles: Tiles) -> Option<SplitOfK> {
    let [a, b] = of.operands([Slot::Input(0); 2]);
    let pays = [(a, tiles[1]), (b, tiles[0])].map(|(x, readers)| of.pays(&x, readers, tiles));
    let is_too_large = tiles[0] * of.tile_bytes() > MAX_PACKED_BYTES;
    if pays != [true; 2] || !is_too_large || tiles[0] * tiles[1] * of.batch < ENOUGH_TILES {
        return None;
    }
    let quad_bytes = (tiles[0] + tiles[1]) * of.batch * TILE * 16;
    let most = 4 * (2 * MAX_PACKED_BYTES / quad_bytes);
    let parts = of.k_len().div_ceil(most.max(1));
    let parts_bytes = parts * of.batch * of.m * of.n * 4;
    if most < LEAST_PART || parts < 2 || parts_bytes > MAX_PARTS_BYTES {
        return None;
    }
    Some(SplitOfK::of(of.k_len(), parts, DEPTH))
}

/// Whether A and B are to be exchanged. They are where both are worth packing and A is too large to be packed whole, but B
/// is not: only B is packed in parts. 2048 x 576 x 576 takes a tenth less time so, packing included.
pub(super) fn is_better_turned(of: &Contraction, tiles: Tiles) -> bool {
    let [a, b] = of.operands([Slot::Input(0); 2]);
    let is_small = |tiles: usize| tiles * of.tile_bytes() <= MAX_PACKED_BYTES;
    of.bias == Bias::None
        && !of.symmetric
        && !is_small(tiles[0])
        && is_small(tiles[1])
        && of.pays(&a, tiles[1], tiles)
        && of.pays(&b, tiles[0], tiles)
}

/// Makes the bare product that `lowered` begins with one of the subgroup kernel's.
pub(super) fn arrange(
    of: &Contraction,
    tiles: Tiles,
    split_of_k: SplitOfK,
    lowered: Lowered,
) -> Result<Lowered> {
    let mut dispatches = lowered.dispatches.into_iter();
    let Some(product) = dispatches.next() else {
        return Ok(Lowered::default());
    };
    let mut arranged = Arranged {
        of,
        tiles,
        split: split_of_k,
        product,
        dispatches: Vec::new(),
        scratch: lowered.scratch,
    };
    if split(of, tiles).is_some() {
        arranged.part_by_part()?;
    } else {
        arranged.all_of_k()?;
    }
    arranged.dispatches.extend(dispatches);
    Ok(Lowered {
        dispatches: arranged.dispatches,
        scratch: arranged.scratch,
    })
}

struct Arranged<'a> {
    of: &'a Contraction,
    tiles: Tiles,
    split: SplitOfK,
    product: Dispatch,
    dispatches: Vec<Dispatch>,
    scratch: Vec<usize>,
}

/// A dispatch's share, in the shader's `Params`: `count` tiles along n from `first_tile_n` on, `splits` from
/// `first_split` on; and what is packed of k.
#[derive(Clone, Copy)]
struct Share {
    first_tile_n: usize,
    count: usize,
    first_split: usize,
    splits: usize,
    packed_from: usize,
    packed_quads: usize,
}

impl Arranged<'_> {
    /// A packed whole, or as it is; B in parts along n, or as it is.
    fn all_of_k(&mut self) -> Result<()> {
        let (of, tiles) = (self.of, self.tiles);
        let tile_bytes = of.tile_bytes();
        let [a, b] = of.operands([self.product.bindings[0], self.product.bindings[3]]);
        let mut share = Share {
            first_tile_n: 0,
            count: tiles[1],
            first_split: 0,
            splits: self.split.parts,
            packed_from: 0,
            packed_quads: of.k_len().div_ceil(4),
        };
        let mut lies = [of.lies(&a), of.lies(&b)];
        let mut slots = [a.slot, b.slot];
        if of.pays(&a, tiles[1], tiles) && tiles[0] * tile_bytes <= MAX_PACKED_BYTES {
            lies[0] = Lies::Packed;
            slots[0] = self.scratch(tiles[0] * tile_bytes / 4);
            self.pack(&a, 0, tiles[0], share, slots[0])?;
        }
        let most = MAX_PACKED_BYTES / tile_bytes.max(1);
        let fills = most.min(tiles[1]) * tiles[0] * of.batch * share.splits >= ENOUGH_TILES;
        if of.pays(&b, tiles[0], tiles) && most > 0 && fills {
            lies[1] = Lies::Packed;
            // Parts of about the same size.
            share.count = tiles[1].div_ceil(tiles[1].div_ceil(most));
            slots[1] = self.scratch(share.count * tile_bytes / 4);
        }
        for first_tile_n in (0..tiles[1]).step_by(share.count.max(1)) {
            share.first_tile_n = first_tile_n;
            share.count = share.count.min(tiles[1] - first_tile_n);
            if lies[1] == Lies::Packed {
                self.pack(&b, first_tile_n, share.count, share, slots[1])?;
            }
            self.multiply(share, lies, slots)?;
        }
        Ok(())
    }

    /// Both packed, one split after the other.
    fn part_by_part(&mut self) -> Result<()> {
        let (of, tiles) = (self.of, self.tiles);
        let [a, b] = of.operands([self.product.bindings[0], self.product.bindings[3]]);
        let SplitOfK { parts, k_per_split } = self.split;
        let len = |tiles: usize| tiles * of.batch * TILE * k_per_split;
        let slots = [self.scratch(len(tiles[0])), self.scratch(len(tiles[1]))];
        for first_split in 0..parts {
            let packed_from = first_split * k_per_split;
            let share = Share {
                first_tile_n: 0,
                count: tiles[1],
                first_split,
                splits: 1,
                packed_from,
                packed_quads: k_per_split.min(of.k_len() - packed_from).div_ceil(4),
            };
            self.pack(&a, 0, tiles[0], share, slots[0])?;
            self.pack(&b, 0, tiles[1], share, slots[1])?;
            self.multiply(share, [Lies::Packed; 2], slots)?;
        }
        Ok(())
    }

    fn scratch(&mut self, len: usize) -> Slot {
        self.scratch.push(len);
        Slot::Scratch(self.scratch.len() - 1)
    }

    fn multiply(&mut self, share: Share, lies: [Lies; 2], slots: [Slot; 2]) -> Result<()> {
        let mut part = self.product.clone();
        part.kernel.constants.push(("A_LIES", lies[0] as u32));
        part.kernel.constants.push(("B_LIES", lies[1] as u32));
        part.bindings.extend(slots);
        part.params.set("splits", share.splits)?;
        share.write(&mut part.params, [self.tiles[0], share.count])?;
        let tasks = self.tiles[0] * share.count * self.of.batch * share.splits;
        part.grid = Grid::Workgroups(tasks);
        self.dispatches.push(part);
        Ok(())
    }

    /// `count` tiles of `operand` from `first` on into `panels`.
    fn pack(
        &mut self,
        operand: &Operand,
        first: usize,
        count: usize,
        share: Share,
        panels: Slot,
    ) -> Result<()> {
        let of = self.of;
        // The operand is A of this one.
        let source = Contraction {
            m: operand.len,
            m_extents: operand.extents,
            a_m: operand.along,
            a_k: operand.k,
            a_batch: operand.batch,
            a_from: operand.from,
            ..*of
        };
        let mut params = source.params([0; 2], SplitOfK::of(of.k_len(), 1, DEPTH), 0)?;
        let share = Share {
            first_tile_n: first,
            ..share
        };
        share.write(&mut params, [count, 1])?;
        let chunks = share.packed_quads.div_ceil(PACKED_AT_ONCE);
        self.dispatches.push(Dispatch {
            kernel: Kernel {
                name: "contraction_pack",
                source: include_str!("../../../shaders/contraction_pack.wgsl").into(),
                entry: "pack",
                constants: vec![("AT_ONCE", word(PACKED_AT_ONCE)?)],
            },
            params,
            bindings: vec![operand.slot, panels],
            grid: Grid::Workgroups(chunks * count * of.batch),
        });
        Ok(())
    }
}

impl Share {
    /// Into the shader's `Params`.
    fn write(self, params: &mut Params, tiles: Tiles) -> Result<()> {
        for (name, value) in [
            ("tiles_m", tiles[0]),
            ("tiles_n", tiles[1]),
            ("first_tile_n", self.first_tile_n),
            ("first_split", self.first_split),
            ("packed_from", self.packed_from),
            ("packed_quads", self.packed_quads),
        ] {
            params.set(name, value)?;
        }
        Ok(())
    }
}

impl Contraction {
    /// A and B.
    fn operands(&self, slots: [Slot; 2]) -> [Operand; 2] {
        let a = Operand {
            slot: slots[0],
            len: self.m,
            extents: self.m_extents,
            along: self.a_m,
            k: self.a_k,
            batch: self.a_batch,
            from: self.a_from,
        };
        let b = Operand {
            slot: slots[1],
            len: self.n,
            extents: self.n_extents,
            along: self.b_n,
            k: self.b_k,
            batch: self.b_batch,
            from: self.b_from,
        };
        [a, b]
    }

    /// Of what a tile's rows, or columns, are packed into, for all of k.
    fn tile_bytes(&self) -> usize {
        self.batch * TILE * self.k_len().div_ceil(4) * 16
    }

    /// True if packing `operand` costs less than reading it as it lies in `readers` tiles.
    fn pays(&self, operand: &Operand, readers: usize, tiles: Tiles) -> bool {
        // Half of the tiles of a symmetric result are mirrored.
        let halves = 1 + usize::from(self.symmetric);
        let work = tiles[0] * tiles[1] * self.batch * self.k_len().div_ceil(4);
        let least = match self.lies(operand) {
            Lies::Loose => READERS_OF_LOOSE,
            _ => READERS_OF_VECTORS,
        };
        work / halves >= WORTH_PACKING && readers / halves >= least
    }

    fn lies(&self, operand: &Operand) -> Lies {
        let [middle, inner] = operand.extents;
        let along = [operand.len.div_ceil(middle * inner), middle, inner];
        let is_batch_aligned =
            operand.from.is_multiple_of(4) && (self.batch == 1 || operand.batch.is_multiple_of(4));
        let is_vectors = |extents, strides, other_extents, other_strides| {
            is_batch_aligned
                && runs_of_four(extents, strides)
                && strides_of_four(other_extents, other_strides)
        };
        if is_vectors(self.k, operand.k, along, operand.along) {
            Lies::AlongK
        } else if is_vectors(along, operand.along, self.k, operand.k) {
            Lies::Across
        } else {
            Lies::Loose
        }
    }
}

/// True if every four numbers from a multiple of four on, in the order of these loops, are a vector.
fn runs_of_four(extents: [usize; 3], strides: [usize; 3]) -> bool {
    let mut run = 1;
    let mut loops = extents.into_iter().zip(strides).rev();
    let rest = loops.find(|&(extent, stride)| {
        let goes_on = extent == 1 || stride == run;
        run *= if goes_on { extent } else { 1 };
        !goes_on
    });
    run % 4 == 0 && rest.into_iter().chain(loops).all(is_aligned)
}

fn strides_of_four(extents: [usize; 3], strides: [usize; 3]) -> bool {
    extents.into_iter().zip(strides).all(is_aligned)
}

fn is_aligned((extent, stride): (usize, usize)) -> bool {
    extent == 1 || stride % 4 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Variants;

    fn entries(contraction: &Contraction) -> (Vec<&'static str>, Vec<usize>) {
        let variants = Variants::Subgroup;
        let slots = [Slot::Input(0), Slot::Input(1)];
        let lowered = contraction.lower(variants, slots[0], slots[1], None, Slot::Output);
        let lowered = lowered.unwrap();
        for dispatch in &lowered.dispatches {
            for slot in &dispatch.bindings {
                assert!(!matches!(slot, Slot::Scratch(i) if *i >= lowered.scratch.len()));
            }
        }
        let entries = lowered.dispatches.iter().map(|d| d.kernel.entry).collect();
        (entries, lowered.scratch)
    }

    #[test]
    fn operands_are_packed_where_enough_tiles_read_them() {
        let square = |n: usize| Contraction::matrix(n, n, n, [n, 1], [n, 1]);
        assert_eq!(entries(&square(144)).0, ["direct_subgroup"]);
        let (dispatches, scratch) = entries(&square(512));
        assert_eq!(dispatches, ["pack", "pack", "direct_subgroup"]);
        assert_eq!(scratch, [512 * 512; 2]);
    }

    #[test]
    fn what_is_packed_is_bounded_and_taken_in_parts() {
        // B takes four times the bound, A less than it.
        let wide = Contraction::matrix(400, 2048, 2048, [2048, 1], [2048, 1]);
        let (dispatches, scratch) = entries(&wide);
        assert_eq!(
            dispatches
                .iter()
                .filter(|&&e| e == "direct_subgroup")
                .count(),
            4
        );
        assert!(scratch.iter().all(|len| len * 4 <= MAX_PACKED_BYTES));
        // Both are far longer than the bound allows, and lie loose.
        let long = Contraction::matrix(150, 170, 50_001, [50_001, 1], [170, 1]);
        let (dispatches, scratch) = entries(&long);
        let products = dispatches
            .iter()
            .filter(|&&e| e == "direct_subgroup")
            .count();
        assert!(products > 1);
        assert_eq!(
            dispatches.iter().filter(|&&e| e == "pack").count(),
            2 * products
        );
        assert_eq!(dispatches.last(), Some(&"add_parts"));
        assert_eq!(scratch[0], products * 150 * 170);
        assert!(scratch[1] + scratch[2] <= 2 * MAX_PACKED_BYTES / 4);
    }

    #[test]
    fn a_large_a_is_exchanged_with_a_small_b() {
        let folded = Contraction::matrix(4096, 576, 576, [576, 1], [576, 1]);
        let (dispatches, scratch) = entries(&folded);
        let products = dispatches.iter().filter(|&&e| e == "direct_subgroup");
        assert_eq!(products.count(), 3);
        assert_eq!(dispatches.len(), 1 + 2 * 3);
        // What was B is packed whole.
        assert_eq!(scratch[0], 576 * 576);
        assert!(scratch.iter().all(|len| len * 4 <= MAX_PACKED_BYTES));
    }

    #[test]
    fn vectors_are_found_where_they_lie_whole() {
        assert!(runs_of_four([1, 1, 8], [0, 0, 1]));
        // An image of 4 rows of 3, read row after row, in planes.
        assert!(runs_of_four([5, 4, 3], [12, 3, 1]));
        assert!(runs_of_four([5, 2, 4], [100, 12, 1]));
        assert!(!runs_of_four([5, 2, 4], [100, 11, 1]));
        assert!(!runs_of_four([1, 1, 6], [0, 0, 1]));
        assert!(!runs_of_four([1, 1, 8], [0, 0, 2]));
        assert!(!runs_of_four([1, 1, 1], [0, 0, 0]));
        // Of rows of 64; what begins, or goes on with the next matrix, within a vector has none.
        let product = Contraction {
            batch: 2,
            a_batch: 64 * 64,
            b_batch: 64 * 64,
            ..Contraction::matrix(64, 64, 64, [64, 1], [64, 1])
        };
        for (from, batch, is_whole) in [
            (0, 64 * 64, true),
            (8, 64 * 64, true),
            (2, 64 * 64, false),
            (0, 64 * 64 + 2, false),
        ] {
            let [a, b] = product.operands([Slot::Input(0), Slot::Input(1)]);
            for operand in [a, b] {
                let lies = product.lies(&Operand {
                    from,
                    batch,
                    ..operand
                });
                let is_loose = matches!(lies, Lies::Loose);
                assert_eq!(is_loose, !is_whole, "from {from}, by {batch}");
            }
        }
    }
}
