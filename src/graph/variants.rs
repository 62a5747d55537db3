//! Which kernels products take on an adapter.

use std::fmt;
use std::str::FromStr;

use crate::graph::tiles::{Class, Tile, Tiles};
use crate::{Error, Result};

/// Kernel choices for an adapter; `passes::select_variant` has which it can run. As text they are what `--kernels` takes: a name of
/// [`Variants::named`], `tiled:TILE` for one tile everywhere, or `measured:` and the tiles of all classes with commas
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a program: no list of them is kept"
)]
pub enum Variants {
    /// Barrier-free register-blocked kernels, for CPU adapters.
    Direct,
    /// As `Direct`, with loads that a subgroup of 8 invocations shares by broadcasts.
    Subgroup,
    /// Tiles in workgroup memory, for GPUs.
    Tiled(Tiles),
}

impl Variants {
    /// Those with a name of their own.
    pub fn named() -> [(&'static str, Self); 3] {
        [
            ("direct", Self::Direct),
            ("subgroup", Self::Subgroup),
            ("tiled", Self::Tiled(Tiles::default())),
        ]
    }

    /// Whether they are for CPU adapters.
    pub fn are_direct(self) -> bool {
        !matches!(self, Self::Tiled(_))
    }
}

const ONE_TILE: &str = "tiled:";
const MEASURED: &str = "measured:";

impl fmt::Display for Variants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::named().into_iter().find(|(_, known)| known == self);
        match (named, self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Tiled(tiles)) => {
                let one = tiles.of(Class::of(1, 1, 1));
                if *tiles == Tiles::all(one) {
                    return write!(f, "{ONE_TILE}{}", one.name());
                }
                let tiles = Class::all().map(|class| tiles.of(class).name());
                write!(f, "{MEASURED}{}", tiles.collect::<Vec<_>>().join(","))
            }
            // These are named.
            (None, Self::Direct | Self::Subgroup) => Ok(()),
        }
    }
}

impl FromStr for Variants {
    type Err = Error;

    /// # Errors
    /// [`Error::Config`] with the names that exist.
    fn from_str(text: &str) -> Result<Self> {
        let known = |name: &str| {
            Tile::find(name).ok_or_else(|| {
                let names = Tile::ALL.map(|tile| tile.name()).join(", ");
                Error::Config(format!("no tile is called {name:?}; there are {names}"))
            })
        };
        if let Some((_, variants)) = Self::named().into_iter().find(|(name, _)| *name == text) {
            return Ok(variants);
        }
        if let Some(name) = text.strip_prefix(ONE_TILE) {
            return Ok(Self::Tiled(Tiles::all(known(name)?)));
        }
        let Some(names) = text.strip_prefix(MEASURED) else {
            let names = Self::named().map(|(name, _)| name).join(", ");
            return Err(Error::Config(format!(
                "no kernels are called {text:?}; there are {names} and {ONE_TILE}TILE"
            )));
        };
        let names: Vec<&str> = names.split(',').collect();
        if names.len() != Class::COUNT {
            let (found, wanted) = (names.len(), Class::COUNT);
            return Err(Error::Config(format!(
                "kernels {text:?} have {found} tiles, and this version has {wanted} classes: they are another version's; \
                 `kernels` tiled or a new measurement take their place"
            )));
        }
        let mut tiles = Tiles::default();
        for (class, name) in Class::all().zip(names) {
            tiles.set(class, known(name)?);
        }
        Ok(Self::Tiled(tiles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_read_as_they_are_written() {
        let mut mixed = Tiles::all(Tile::ALL[1]);
        mixed.set(Class::of(1, 1, 1), Tile::ALL[4]);
        for (variants, text) in [
            (Variants::Direct, "direct"),
            (Variants::Subgroup, "subgroup"),
            (Variants::Tiled(Tiles::default()), "tiled"),
            (Variants::Tiled(Tiles::all(Tile::ALL[1])), "tiled:128x128x8"),
        ] {
            assert_eq!(variants.to_string(), text);
            assert_eq!(text.parse::<Variants>().unwrap(), variants);
        }
        let text = Variants::Tiled(mixed).to_string();
        assert!(text.starts_with("measured:32x32x16,128x128x8,"), "{text}");
        assert_eq!(text.parse::<Variants>().unwrap(), Variants::Tiled(mixed));
    }

    #[test]
    fn unknown_kernels_are_refused_with_those_that_exist() {
        for (text, wanted) in [
            ("tile", "tiled:TILE"),
            ("tiled:64x64", "64x64x16"),
            ("measured:64x64x16", "classes"),
            ("", "direct"),
        ] {
            let error = text.parse::<Variants>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
