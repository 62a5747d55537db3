//! Pictures that a program paints on the GPU: where they are, and what they show.

use image::RgbImage;

use super::decorrelate::{Whitening, centre_kernels, known};
use super::measures::NO_VARIANCE;
use super::sheet::NamedPicture;
use crate::graph::{Init, Role, Tensor};
use crate::ops::{Colours, ROW_ALIGNMENT, Tiles};
use crate::program::Store;
use crate::{Error, Result};

/// Pixels that heat maps and mosaics are wide and high, about.
pub(super) const SIDE: usize = 480;
/// Width of a colour bar in pixels; it is as high as the heat map beside it.
const BAR_WIDTH: usize = 20;
/// Most pixels of the side of a tile of a mosaic of kernels.
const KERNEL_SIDE: usize = 120;

/// A picture in the state `name` of a store, once its program has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Of the state, and of files.
    pub name: String,
    /// For people.
    pub title: String,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

impl View {
    /// Pixels from row to row in the state, see [`crate::ops::Paint`].
    pub fn row(&self) -> usize {
        self.width.next_multiple_of(ROW_ALIGNMENT)
    }

    /// The picture with its names. Waits for the GPU.
    ///
    /// # Errors
    /// What the device reported.
    pub(super) fn named(&self, store: &Store) -> Result<NamedPicture> {
        Ok(NamedPicture {
            name: self.name.clone(),
            title: self.title.clone(),
            picture: self.read(store)?,
        })
    }

    /// The picture. Waits for the GPU.
    ///
    /// # Errors
    /// What the device reported.
    pub fn read(&self, store: &Store) -> Result<RgbImage> {
        // Bits of colours in f32, some of them NaN's: they are moved, and never computed with.
        let words = store.read(&self.name)?;
        let (width, height) = (self.width as u32, self.height as u32);
        Ok(RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, _] = words[y as usize * self.row() + x as usize]
                .to_bits()
                .to_le_bytes();
            image::Rgb([r, g, b])
        }))
    }
}

/// Which numbers are black and white.
#[derive(Clone, Copy, Debug)]
pub(super) enum Range {
    /// 0 and 1, the ends of an image's own values.
    Unit,
    /// The least and the largest.
    Full,
    /// Of magnitudes: 0 and the one under which this share of all lies.
    FromZero { share: f64, least: f32 },
    /// Minus the magnitude under which this share of all lies, and it.
    Symmetric { share: f64, least: f32 },
}

/// The ends of `range` [1, 2], or of `rows` parts of `x` [rows, 2]. `least` is the least magnitude that is an end:
/// what varies by less is rounding, and not to be stretched to full colours.
pub(super) fn range(x: Tensor<'_>, range: Range, rows: usize) -> Tensor<'_> {
    let g = x.graph();
    let n = x.len() / rows;
    let last = n.saturating_sub(1);
    let (magnitude, share, least) = match range {
        Range::Unit => return known(g, "unit_range", [1, 2], [0.0, 1.0]),
        Range::Full => return x.reshape([rows, n]).kth_value(&[0, last]),
        Range::FromZero { share, least } => (x, share, least),
        Range::Symmetric { share, least } => (x.abs(), share, least),
    };
    let place = (share * last as f64).round() as usize;
    let high = magnitude.reshape([rows, n]).kth_value(&[place]);
    let high = high.maximum(g.constant(least, [1]));
    let low = match range {
        Range::Symmetric { .. } => -high,
        _ => high * 0.0,
    };
    g.concat(&[low, high], 1)
}

/// Has `x` painted into a view.
pub(super) fn view<'g>(
    name: &str,
    title: impl Into<String>,
    x: Tensor<'g>,
    range: Tensor<'g>,
    tiles: Tiles,
) -> View {
    let [height, width] = tiles.extent();
    let picture = x.paint(range, tiles);
    let (g, nothing) = (x.graph(), Init::Constant(0.0));
    let state = g.state(name, picture.shape(), Role::Scratch, nothing);
    state.assign(picture);
    View {
        name: name.to_string(),
        title: title.into(),
        width,
        height,
    }
}

/// The covariances before and after as heat maps, the decorrelation kernels as a mosaic, the bar
/// of their colours, and the ends of the heat maps' ranges as outputs `NAME.range`.
pub(super) fn covariance_views(by: &Whitening<'_>, kernel_size: usize, block: usize) -> Vec<View> {
    let (g, features) = (by.cov.graph(), by.cov.size(0));
    let side = magnified(features, SIDE);
    let mut views = Vec::new();
    // After deconvolution variances are about 1.
    let no_variance = NO_VARIANCE as f32;
    for (name, title, cov, least) in [
        (
            "cov_before",
            "covariance of patches, before",
            by.cov,
            no_variance,
        ),
        (
            "cov_after",
            "covariance of patches, after",
            by.cov_after,
            1e-3,
        ),
    ] {
        let share = 1.0;
        let range = range(cov, Range::Symmetric { share, least }, 1);
        g.output(&format!("{name}.range"), range);
        let mut tiles = Tiles::picture(1, [features; 2], [side; 2]);
        tiles.colours = Colours::Signed;
        views.push(view(name, title, cov, range, tiles));
    }
    views.push(kernels_view(by.deconv, kernel_size, block));
    let steps = (side - 1).max(1) as f32;
    let ramp = (0..side).map(|i| 1.0 - i as f32 / steps);
    let ramp = known(g, "ramp", [side], ramp);
    let ends = range(ramp, Range::Unit, 1);
    let mut tiles = Tiles::picture(1, [side, 1], [side, BAR_WIDTH]);
    tiles.colours = Colours::Signed;
    views.push(view("colour_bar", "", ramp, ends, tiles));
    views
}

/// The channels of `x` [1, C, H, W] as a mosaic of about `side` pixels, each stretched from its least to
/// its largest value.
pub(super) fn channels_view(name: &str, title: &str, x: Tensor<'_>, side: usize) -> View {
    let [_, channels, h, w] = x.dims();
    let gap = 2;
    let columns = mosaic_columns(channels, [h + gap, w + gap]);
    let tiles = Tiles {
        count: channels,
        columns,
        pixels: fitted([h, w], (side / columns).saturating_sub(gap).max(8)),
        gap,
        strides: [h * w, 0, w, 1],
        background: [255; 3],
        ..Tiles::picture(1, [h, w], [h, w])
    };
    let ends = range(x, Range::Full, channels);
    view(name, title, x, ends, tiles)
}

/// The kernels `weight` [O, I, k, k] as a mosaic of about `side` pixels, in colour if they are of red, green
/// and blue; otherwise of the first input only.
pub(super) fn weights_view(name: &str, title: &str, weight: Tensor<'_>, side: usize) -> View {
    let [outputs, inputs, k_h, k_w] = weight.dims();
    // White is 0 in a kernel, so that it takes a line of another colour to tell one from the next.
    let gap = 6;
    let columns = (1..=outputs).find(|n| n * n >= outputs).unwrap_or(1);
    let most = (side / columns).saturating_sub(gap);
    let plane = k_h * k_w;
    let in_colour = inputs == 3;
    let tiles = Tiles {
        count: outputs,
        columns,
        channels: if in_colour { 3 } else { 1 },
        pixels: [k_h, k_w].map(|n| n * (most / k_h.max(k_w)).max(1)),
        gap,
        strides: [inputs * plane, plane, k_w, 1],
        background: [110; 3],
        colours: match in_colour {
            true => Colours::Linear,
            false => Colours::Signed,
        },
        ..Tiles::picture(1, [k_h, k_w], [1, 1])
    };
    let (share, least) = (1.0, f32::MIN_POSITIVE);
    let ends = range(weight, Range::Symmetric { share, least }, 1);
    view(name, title, weight, ends, tiles)
}

/// All columns of D as patches, in colour if they are of red, green and blue: side by side for each
/// channel, a tile at the place of the pixel that it decorrelates. Of more channels, the columns of the
/// centre taps alone: a row a channel, with the taps on each channel side by side.
fn kernels_view(deconv: Tensor<'_>, k: usize, block: usize) -> View {
    let features = block * k * k;
    let in_colour = block == 3;
    let of_columns = block == 1 || in_colour;
    let (count, columns) = match of_columns {
        true => (features, k * block),
        false => (block * block, block),
    };
    let (source, strides) = match of_columns {
        true => {
            // D is symmetric: its columns as rows, in the order of the tiles.
            let taps = deconv.reshape([block, k, k, features]);
            let taps = taps.permute(&[1, 0, 2, 3]);
            (taps, [features, k * k, k, 1])
        }
        false => (centre_kernels(deconv, block, k), [k * k, 0, k, 1]),
    };
    let gap = if columns > 32 { 1 } else { 2 };
    let rows = count.div_ceil(columns);
    // Those of channels are as many in a column as in a row, and many.
    let (height, largest) = match of_columns {
        true => (SIDE, KERNEL_SIDE),
        false => (2 * SIDE, KERNEL_SIDE / 4),
    };
    let most = (2 * SIDE / columns).min(height / rows);
    let most = most.saturating_sub(gap).min(largest);
    let tiles = Tiles {
        count,
        columns,
        channels: if in_colour { 3 } else { 1 },
        size: [k; 2],
        pixels: [k * (most / k).max(1); 2],
        gap,
        strides,
        // Neither the colour of 0 nor of any other number.
        background: if in_colour { [255; 3] } else { [110; 3] },
        colours: match in_colour {
            true => Colours::Linear,
            false => Colours::Signed,
        },
    };
    let (share, least) = (1.0, f32::MIN_POSITIVE);
    let range = range(source, Range::Symmetric { share, least }, 1);
    let title = match (of_columns, in_colour) {
        (true, true) => "decorrelation kernels, grey is 0",
        (true, false) => "decorrelation kernels, white is 0",
        _ => "decorrelation kernels of the centre pixels, white is 0",
    };
    view("kernels", title, source, range, tiles)
}

/// Columns of a mosaic of `count` tiles so high and wide: about square, with a full last row if a number of
/// columns near that gives it.
fn mosaic_columns(count: usize, [h, w]: [usize; 2]) -> usize {
    let is_wide = |n: &usize| n * w >= count.div_ceil(*n) * h;
    let columns = (1..=count).find(is_wide).unwrap_or(count);
    let spread = columns.div_ceil(4);
    let mut near = (columns..=columns + spread).chain(columns - spread.min(columns - 1)..columns);
    near.find(|n| count.is_multiple_of(*n)).unwrap_or(columns)
}

/// Pixels for `n` numbers in a row: a whole number each, or, if they are too many, `most` in all.
pub(super) fn magnified(n: usize, most: usize) -> usize {
    match most / n.max(1) {
        0 => most,
        each => each * n,
    }
}

/// Rows and columns in pixels of a picture of `size` that is to fit a square of `side`: smaller, or whole
/// numbers of pixels a pixel.
pub(super) fn fitted([h, w]: [usize; 2], side: usize) -> [usize; 2] {
    let longer = h.max(w).max(1);
    match side / longer {
        0 => [h, w].map(|n| (n * side / longer).max(1)),
        each => [h * each, w * each],
    }
}

/// The view called `name`.
///
/// # Errors
/// [`Error::Bug`] if there is none.
pub(super) fn find<'a>(views: &'a [View], name: &str) -> Result<&'a View> {
    let found = views.iter().find(|v| v.name == name);
    found.ok_or_else(|| Error::bug(format!("no view is called {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Kind};

    #[test]
    fn mosaics_are_full_and_about_square() {
        for (count, size, columns) in [
            (64, [1, 1], 8),
            (64, [3, 4], 8),
            (64, [1, 9], 4),
            (48, [1, 1], 8),
            (7, [1, 1], 3),
            (1, [5, 5], 1),
            (2, [9, 1], 2),
        ] {
            assert_eq!(mosaic_columns(count, size), columns, "{count} {size:?}");
        }
    }
    /// Pictures grow by whole numbers, shrink in proportion, and are never of no pixels.
    #[test]
    fn pictures_fit_their_place() {
        for (size, wanted) in [
            ([30, 40], [360, 480]),
            ([480, 10], [480, 10]),
            ([10, 241], [10, 241]),
            ([1000, 2000], [240, 480]),
            ([9000, 3], [480, 1]),
        ] {
            assert_eq!(fitted(size, 480), wanted, "{size:?}");
        }
        for (n, wanted) in [(27, 459), (480, 480), (481, 480)] {
            assert_eq!(magnified(n, 480), wanted, "{n}");
        }
    }

    /// Three inputs are colours; tiles that are many have narrower gaps.
    #[test]
    fn kernels_are_laid_out_by_their_channels() {
        let tiles = |build: fn(&Graph)| {
            let g = Graph::new();
            build(&g);
            g.check().unwrap();
            let list = g.list();
            let ops = list.nodes().iter().filter_map(|node| match &node.kind {
                Kind::Op(op) if op.name() == "paint" => Some(format!("{op:?}")),
                _ => None,
            });
            ops.collect::<String>()
        };
        fn kernels(g: &Graph, k: usize, block: usize) {
            let features = block * k * k;
            kernels_view(g.input("d", [features; 2]), k, block);
        }
        fn weights(g: &Graph, inputs: usize) {
            weights_view("w", "t", g.input("w", [4, inputs, 3, 3]), 64);
        }
        for (painted, wanted) in [
            (
                tiles(|g| weights(g, 3)),
                "columns: 2, channels: 3, size: [3, 3], pixels: [24, 24], gap: 6",
            ),
            (
                tiles(|g| weights(g, 2)),
                "columns: 2, channels: 1, size: [3, 3], pixels: [24, 24], gap: 6",
            ),
            (
                tiles(|g| kernels(g, 1, 32)),
                "columns: 32, channels: 1, size: [1, 1], pixels: [28, 28], gap: 2",
            ),
            (
                tiles(|g| kernels(g, 1, 33)),
                "columns: 33, channels: 1, size: [1, 1], pixels: [28, 28], gap: 1",
            ),
        ] {
            assert!(painted.contains(wanted), "{painted}");
        }
    }
}
