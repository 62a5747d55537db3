//! Tiles of the products' kernels for GPUs, and which product takes which.
//!
//! Unstable: may change in any release.

use std::fmt;

/// Rows and columns of C that a workgroup computes, and how much of k it has in workgroup memory
/// at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The kernel's entry point: `tiled_` and the name.
    pub entry: &'static str,
    /// Rows of C.
    pub m: u32,
    /// Columns of C.
    pub n: u32,
    /// Elements of k.
    pub k: u32,
    /// Rows and as many columns that one invocation computes, a multiple of 4.
    pub outputs: u32,
    /// The next part of k is read from memory while this one is multiplied.
    pub prefetch: bool,
    /// Each row of workgroup memory has one vector more than is used, so that writing along k spreads
    /// over the banks.
    pub padded: bool,
}

impl Tile {
    /// All tiles. Those that are measured come first ([`Tile::candidates`]); the last one is small
    /// enough to be read, and compiled by a software adapter, in a moment: tests take it.
    ///
    /// Registers, occupancy and share of multiply-adds of each, as compilers for GPUs have it, are in
    /// docs/benchmarks.md.
    pub const ALL: [Self; 7] = [
        Self::new("tiled_64x64x16", [64, 64, 16], 4, true),
        Self::new("tiled_128x128x8", [128, 128, 8], 8, false),
        Self::new("tiled_64x128x8", [64, 128, 8], 8, false),
        Self::new("tiled_128x64x8", [128, 64, 8], 8, false),
        Self::new("tiled_32x32x16", [32, 32, 16], 4, true),
        Self::new("tiled_16x64x16", [16, 64, 16], 4, true),
        Self::new("tiled_16x16x4", [16, 16, 4], 4, false),
    ];

    /// The middle one: high occupancy, little padding. Taken where nothing was measured.
    pub const DEFAULT: Self = Self::ALL[0];

    /// For results of up to 16 rows where nothing was measured: with the default tile, 61 of 64 rows of
    /// an image of three channels would be computed for nothing.
    pub const FEW_ROWS: Self = Self::ALL[5];

    /// Those worth measuring.
    pub fn candidates() -> &'static [Self] {
        const ALL: &[Tile] = &Tile::ALL;
        &ALL[..6]
    }

    const fn new(entry: &'static str, [m, n, k]: [u32; 3], outputs: u32, prefetch: bool) -> Self {
        // Large blocks have no registers to spare for a prefetch (8 are spilled on Apple's M1), and the padding
        // costs them nothing; for small ones it is the other way round.
        Self {
            entry,
            m,
            n,
            k,
            outputs,
            prefetch,
            padded: !prefetch,
        }
    }

    /// Rows, columns and depth, as 64x64x16.
    pub fn name(&self) -> &'static str {
        self.entry.trim_start_matches("tiled_")
    }

    /// The tile of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tile| tile.name() == name)
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> u32 {
        (self.m / self.outputs) * (self.n / self.outputs)
    }
}

impl fmt::Debug for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Products that get the same tile: by rows and columns of the result and by length of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    rows: usize,
    columns: usize,
    depth: usize,
}

impl Class {
    /// Most rows of a class; there is one more, of all that have more.
    pub const ROWS: [usize; 4] = [16, 32, 64, 256];
    /// Most columns of a class, likewise.
    pub const COLUMNS: [usize; 3] = [64, 512, 4096];
    /// Most elements of k of a class, likewise.
    pub const DEPTHS: [usize; 1] = [512];
    /// Number of classes.
    pub const COUNT: usize =
        (Self::ROWS.len() + 1) * (Self::COLUMNS.len() + 1) * (Self::DEPTHS.len() + 1);

    /// The class of a product with `m` rows, `n` columns and sums of `k` elements.
    pub fn of(m: usize, n: usize, k: usize) -> Self {
        let place = |bounds: &[usize], x| bounds.iter().filter(|&&bound| x > bound).count();
        Self {
            rows: place(&Self::ROWS, m),
            columns: place(&Self::COLUMNS, n),
            depth: place(&Self::DEPTHS, k),
        }
    }

    /// Every class, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        let depths = Self::DEPTHS.len() + 1;
        let columns = Self::COLUMNS.len() + 1;
        (0..Self::COUNT).map(move |i| Self {
            rows: i / depths / columns,
            columns: i / depths % columns,
            depth: i % depths,
        })
    }

    fn number(self) -> usize {
        let columns = Self::COLUMNS.len() + 1;
        (self.rows * columns + self.columns) * (Self::DEPTHS.len() + 1) + self.depth
    }

    /// Rows, columns and elements of k of a product that stands for the class: the largest, or where
    /// there is no largest, one that networks have.
    pub fn example(self) -> [usize; 3] {
        let at = |bounds: &[usize], i: usize, more| bounds.get(i).copied().unwrap_or(more);
        [
            at(&Self::ROWS, self.rows, 512),
            at(&Self::COLUMNS, self.columns, 16_384),
            at(&Self::DEPTHS, self.depth, 1024),
        ]
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |bounds: &[usize], i: usize| match bounds.get(i) {
            Some(bound) => format!("<= {bound}"),
            None => format!("> {}", bounds[i - 1]),
        };
        let rows = range(&Self::ROWS, self.rows);
        let columns = range(&Self::COLUMNS, self.columns);
        let depth = range(&Self::DEPTHS, self.depth);
        write!(f, "m {rows}, n {columns}, k {depth}")
    }
}

/// The tile of every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles([Tile; Class::COUNT]);

impl Default for Tiles {
    /// What is taken where nothing was measured.
    fn default() -> Self {
        let mut tiles = Self::all(Tile::DEFAULT);
        for class in Class::all().filter(|class| class.rows == 0) {
            tiles.set(class, Tile::FEW_ROWS);
        }
        tiles
    }
}

impl Tiles {
    /// `tile` for all.
    pub fn all(tile: Tile) -> Self {
        Self([tile; Class::COUNT])
    }

    /// The tile of a class.
    pub fn of(&self, class: Class) -> Tile {
        self.0[class.number()]
    }

    /// Changes the tile of a class.
    pub fn set(&mut self, class: Class, tile: Tile) {
        self.0[class.number()] = tile;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_has_a_class_and_every_class_a_product() {
        assert_eq!(Class::all().count(), Class::COUNT);
        for (i, class) in Class::all().enumerate() {
            assert_eq!(class.number(), i);
            let [m, n, k] = class.example();
            assert_eq!(Class::of(m, n, k), class);
        }
        assert_eq!(
            Class::of(3, 1000, 27).to_string(),
            "m <= 16, n <= 4096, k <= 512"
        );
        assert_eq!(
            Class::of(257, 4097, 513).to_string(),
            "m > 256, n > 4096, k > 512"
        );
        assert_eq!(Class::of(1, 1, 1).number(), 0);
        assert_eq!(Class::of(17, 64, 512), Class::of(32, 1, 1));
        assert_ne!(Class::of(16, 64, 512), Class::of(16, 64, 513));
    }

    #[test]
    fn defaults_go_by_rows() {
        let tiles = Tiles::default();
        assert_eq!(tiles.of(Class::of(3, 9999, 27)), Tile::FEW_ROWS);
        assert_eq!(tiles.of(Class::of(17, 9999, 27)), Tile::DEFAULT);
    }

    #[test]
    fn names_are_sizes() {
        for tile in Tile::ALL {
            assert_eq!(tile.name(), format!("{}x{}x{}", tile.m, tile.n, tile.k));
            assert_eq!(Tile::find(tile.name()), Some(tile));
            assert_eq!(
                Tile::ALL.iter().filter(|t| t.entry == tile.entry).count(),
                1
            );
        }
        assert_eq!(Tile::find("64x64"), None);
    }
}
