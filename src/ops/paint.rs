//! Numbers as colours. Bound: bytes of x and of the picture.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;

/// Rows of a picture begin at multiples of so many pixels, as copies from buffers to textures want.
pub const ROW_ALIGNMENT: usize = 64;

/// How [`Tensor::paint`] lays a tensor out: tiles in a grid, from left to right and from top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Number of tiles.
    pub count: usize,
    /// Tiles side by side.
    pub columns: usize,
    /// 3 for red, green and blue, or 1.
    pub channels: usize,
    /// Rows and columns of numbers of a tile.
    pub size: [usize; 2],
    /// Rows and columns of pixels that a tile is painted on.
    pub pixels: [usize; 2],
    /// Pixels between tiles.
    pub gap: usize,
    /// Distances in the tensor between tiles, channels, rows and columns.
    pub strides: [usize; 4],
    /// Between the tiles: red, green, blue.
    pub background: [u8; 3],
    /// What numbers look like.
    pub colours: Colours,
}

/// What numbers between the ends of a range look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// From black to white, or to full red, green and blue.
    Linear,
    /// Blue, white in the middle, red. For one channel.
    Signed,
}

impl Tiles {
    /// A single tile: the image [channels, H, W] of `size` [H, W] on `pixels` (rows, columns).
    pub fn picture(channels: usize, size: [usize; 2], pixels: [usize; 2]) -> Self {
        let [h, w] = size;
        Self {
            count: 1,
            columns: 1,
            channels,
            size,
            pixels,
            gap: 0,
            strides: [channels * h * w, h * w, w, 1],
            background: [0; 3],
            colours: Colours::Linear,
        }
    }

    /// Rows and columns of pixels of all.
    pub fn extent(&self) -> [usize; 2] {
        let along = |n: usize, pixels: usize| (n * (pixels + self.gap)).saturating_sub(self.gap);
        let rows = self.count.div_ceil(self.columns.max(1));
        [
            along(rows, self.pixels[0]),
            along(self.columns, self.pixels[1]),
        ]
    }

    /// The farthest number that is read.
    fn last(&self) -> usize {
        let [tile, channel, row, column] = self.strides;
        let last = |n: usize, stride: usize| n.saturating_sub(1) * stride;
        last(self.count, tile)
            + last(self.channels, channel)
            + last(self.size[0], row)
            + last(self.size[1], column)
    }
}

/// See [`Tensor::paint`].
#[derive(Debug, PartialEq)]
pub struct Paint {
    tiles: Tiles,
}

impl Tensor<'_> {
    /// Paints this: numbers at the first value of its range or below become black, at the second or above
    /// white. `range` is [1, 2], or [tiles, 2] with one for each tile. A single channel is grey, or in the colours of signs.
    ///
    /// Returns [rows, columns rounded up to [`ROW_ALIGNMENT`]] of 32-bit words that are no numbers: red, green,
    /// blue and 255, from the lowest byte. Only copies as they are, outputs and assignments, make sense of
    /// them. No gradient.
    ///
    /// Fails if it has no such tiles.
    #[must_use]
    #[track_caller]
    pub fn paint(self, range: Self, tiles: Tiles) -> Self {
        self.graph().add(Paint { tiles }, &[self, range])
    }
}

impl Op for Paint {
    fn name(&self) -> &'static str {
        "paint"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let t = &self.tiles;
        let sizes = [t.count, t.columns, t.size[0], t.size[1]];
        if sizes.contains(&0) || t.pixels.contains(&0) || ![1, 3].contains(&t.channels) {
            return Err(format!("nothing to paint: {t:?}"));
        }
        if t.last() >= inputs[0].len() {
            return Err(format!("{t:?} are not in {}", inputs[0]));
        }
        match *inputs[1].dims() {
            [n, 2] if n == 1 || n == t.count => {}
            _ => return Err(format!("{} is no range for {} tiles", inputs[1], t.count)),
        }
        let [height, width] = t.extent();
        Ok([height, width.next_multiple_of(ROW_ALIGNMENT)].into())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None, None]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let t = &self.tiles;
        // Whatever the shader counts must fit 32 bits.
        word(ctx.output.len())?;
        word(ctx.inputs[0].len())?;
        // The shader multiplies a pixel's place by the size.
        word(t.size[0] * (t.pixels[0] + 1))?;
        word(t.size[1] * (t.pixels[1] + 1))?;
        let own_range = ctx.inputs[1].dims()[0] > 1;
        let [red, green, blue] = t.background;
        let background = vec![u32::from_le_bytes([red, green, blue, 255])];
        let signed = t.colours == Colours::Signed;
        Ok(Dispatch {
            kernel: Kernel {
                name: "paint",
                source: include_str!("../../shaders/paint.wgsl").into(),
                entry: "main",
                constants: vec![("SIGNED", u32::from(signed))],
            },
            params: Params::new()
                .with("tiles", t.count)?
                .with("columns", t.columns)?
                .with("gap", t.gap)?
                .with("channels", t.channels)?
                .with("size", t.size)?
                .with("pixels", t.pixels)?
                .with("strides", t.strides)?
                .with("own_range", usize::from(own_range))?
                .with("height", ctx.output.dims()[0])?
                .with("row", ctx.output.dims()[1])?
                .with("background", background)?,
            bindings: vec![Slot::Input(0), Slot::Input(1), Slot::Output],
            grid: Grid::Invocations(ctx.output.len()),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::Tiles;
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        // Below half of the range the words are numbers. All pixels: tests/figures.rs.
        vec![
            case(
                "paint",
                &[&[2, 3, 5], &[1, 2]],
                |x| {
                    let ends = x[1] * 0.0 + 1.0;
                    let zero = ends * 0.0;
                    let (low, high) = (zero.slice(1, 0, 1, 1), ends.slice(1, 0, 1, 1));
                    let range = x[0].graph().concat(&[low, high], 1);
                    let tiles = Tiles {
                        count: 2,
                        columns: 2,
                        ..Tiles::picture(1, [3, 5], [6, 5])
                    };
                    x[0].paint(range, tiles)
                },
                |x| {
                    reference::Tensor::from_fn(&[6, 64], |i| {
                        let (row, column) = (i / 64 / 2, i % 64);
                        let level = match column < 10 {
                            true => (x[0].data[(column / 5 * 3 + row) * 5 + column % 5] as f32
                                * 255.0)
                                .round() as u8,
                            false => 0,
                        };
                        f64::from(f32::from_bits(u32::from_le_bytes([
                            level, level, level, 255,
                        ])))
                    })
                },
            )
            .range(0.0, 0.49)
            .not_differentiable(),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("paint", &cases());
    }
}
