//! Bytes of images as normalised numbers: (byte / 255 - mean) / std by channel. Bound: bytes of the result.

use crate::Result;
use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot};
use crate::graph::{Cost, Op, Tensor};
use crate::shape::Shape;

/// See [`Tensor::unpack_pixels`].
#[derive(Debug, PartialEq)]
pub struct UnpackPixels {
    shape: Shape,
}

impl Tensor<'_> {
    /// These words `[ceil(N C H W / 4)]`, which hold four bytes each from the lowest on, as images `shape` [N, C, H, W]: a
    /// byte v of channel c becomes (v / 255 - `mean[c]`) / `std[c]`. `mean` and `std` are [1, C, 1, 1]. What the words hold
    /// beyond the last pixel is ignored.
    ///
    /// The words are no numbers, as those of [`Tensor::paint`]: an input that is given as
    /// [`Input::Bytes`](crate::program::Input::Bytes), for example. No gradient. Fails if the sizes do not fit.
    #[must_use]
    #[track_caller]
    pub fn unpack_pixels(self, mean: Self, std: Self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.graph().add(UnpackPixels { shape }, &[self, mean, std])
    }
}

impl Op for UnpackPixels {
    fn name(&self) -> &'static str {
        "unpack_pixels"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let shape = &self.shape;
        let &[_, channels, _, _] = shape.dims() else {
            return Err(format!("images {shape} are not [N, C, H, W]"));
        };
        let words = shape.len().div_ceil(4);
        if inputs[0].dims() != [words] {
            return Err(format!("{} is not [{words}] for {shape}", inputs[0]));
        }
        let per_channel = [1, channels, 1, 1];
        match inputs[1..].iter().find(|s| s.dims() != per_channel) {
            Some(other) => Err(format!("{other} is not {per_channel:?} for {shape}")),
            None => Ok(shape.clone()),
        }
    }

    fn gradient<'g>(&self, _: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![None, None, None]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: 3 * output.len() as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let dims = self.shape.dims();
        let (channels, plane) = (dims[1], dims[2] * dims[3]);
        let len = self.shape.len();
        Ok(Dispatch {
            kernel: Kernel {
                name: "unpack_pixels",
                source: include_str!("../../shaders/unpack_pixels.wgsl").into(),
                entry: "main",
                constants: vec![],
            },
            params: Params::new()
                .with("len", len)?
                .with("channels", channels)?
                .with("plane", plane)?,
            bindings: vec![Slot::Input(0), Slot::Input(1), Slot::Input(2), Slot::Output],
            grid: Grid::Invocations(ctx.inputs[0].len()),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Init, Role};
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        // Every byte, in images whose number of values is no multiple of 4; the last word has one byte too many.
        for shape in [[3, 3, 5, 7], [1, 1, 7, 37], [2, 5, 1, 3], [1, 1, 1, 1]] {
            let len: usize = shape.iter().product();
            let byte = |i: usize| (i * 37 + 11) as u8;
            let scale = [1, shape[1], 1, 1];
            cases.push(
                case(
                    &format!("unpack_pixels {shape:?}"),
                    &[&scale, &scale],
                    move |x| {
                        let word = |i| u32::from_le_bytes([0, 1, 2, 3].map(|k| byte(4 * i + k)));
                        let words = (0..len.div_ceil(4)).map(|i| f32::from_bits(word(i)));
                        let words: Vec<f32> = words.collect();
                        let (count, words) = (words.len(), Init::Values(words.into()));
                        let words = x[0].graph().state("words", [count], Role::Scratch, words);
                        words.unpack_pixels(x[0], x[1], shape)
                    },
                    move |x| {
                        reference::Tensor::from_fn(&shape, |i| {
                            let channel = i / (shape[2] * shape[3]) % shape[1];
                            (f64::from(byte(i)) / 255.0 - x[0].data[channel]) / x[1].data[channel]
                        })
                    },
                )
                .range(0.2, 0.6)
                .not_differentiable(),
            );
        }
        cases
    }

    #[test]
    fn it_is_the_reference() {
        check("unpack_pixels", &cases());
    }
}
