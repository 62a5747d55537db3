//! Patches of images as the rows of a matrix (section 3.4), and the adjoint, col2im.
//!
//! Bound: bytes of the patch matrix, k*k times the image at stride 1.

use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, word};
use crate::graph::{Op, Tensor};
use crate::shape::{Shape, window_positions};
use crate::{Error, Result};

/// Where patches are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of a patch in taps.
    pub kernel_size: [usize; 2],
    /// Distance between neighbouring patches in pixels.
    pub stride: usize,
    /// Zeros around the image in pixels; they are part of the patches.
    pub padding: usize,
    /// Distance between neighbouring taps in pixels.
    pub dilation: usize,
}

impl Window {
    /// Rows and columns of patch positions on an image of `height` x `width`, if any.
    pub fn positions(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let count =
            |size, kernel| window_positions(size, kernel, self.stride, self.padding, self.dilation);
        Some([
            count(height, self.kernel_size[0])?,
            count(width, self.kernel_size[1])?,
        ])
    }
}

/// See [`Tensor::im2col`].
#[derive(Debug, PartialEq)]
pub struct Im2col {
    window: Window,
}

/// See [`Tensor::col2im`].
#[derive(Debug, PartialEq)]
pub struct Col2im {
    window: Window,
    image: Shape,
}

impl Tensor<'_> {
    /// The patches of this [N, C, H, W] as [N * `out_h` * `out_w`, C * `k_h` * `k_w`]: row (n, oh, ow), column
    /// (c, ky, kx). Fails if it is not NCHW or no patch fits.
    #[must_use]
    #[track_caller]
    pub fn im2col(self, window: Window) -> Self {
        self.apply(Im2col { window })
    }

    /// [`Tensor::im2col`] minus `mean`, whose numbers, in the order of the columns, repeat along them: one of
    /// each block, or of all columns. Fails if `mean` does not repeat so.
    #[must_use]
    #[track_caller]
    pub fn im2col_centred(self, mean: Self, window: Window) -> Self {
        self.graph().add(Im2col { window }, &[self, mean])
    }

    /// The adjoint of [`Tensor::im2col`]: every patch added back where it came from, into an image of shape
    /// `image` [N, C, H, W]. Fails if this does not have the shape that `im2col` gives for `image`.
    #[must_use]
    #[track_caller]
    pub fn col2im(self, window: Window, image: impl Into<Shape>) -> Self {
        let image = image.into();
        self.apply(Col2im { window, image })
    }
}

fn columns_shape(window: &Window, image: &Shape) -> Result<Shape, String> {
    let &[n, c, h, w] = image.dims() else {
        return Err(format!("{image} is not NCHW"));
    };
    let [out_h, out_w] = window
        .positions(h, w)
        .ok_or_else(|| format!("no patch of {window:?} fits {image}"))?;
    let [k_h, k_w] = window.kernel_size;
    Ok([n * out_h * out_w, c * k_h * k_w].into())
}

fn dispatch(
    window: &Window,
    image: &Shape,
    mean: usize,
    entry: &'static str,
    invocations: usize,
) -> Result<Lowered> {
    let &[n, c, h, w] = image.dims() else {
        return Err(Error::bug(format!("im2col of {image}, which is not NCHW")));
    };
    let positions = window.positions(h, w);
    let [out_h, out_w] =
        positions.ok_or_else(|| Error::bug(format!("im2col has no patches in {image}")))?;
    let [k_h, k_w] = window.kernel_size;
    let (stride, padding, dilation) = (window.stride, window.padding, window.dilation);
    let constants = [
        ("CHANNELS", c),
        ("HEIGHT", h),
        ("WIDTH", w),
        ("OUT_H", out_h),
        ("OUT_W", out_w),
        ("K_H", k_h),
        ("K_W", k_w),
        ("STRIDE", stride),
        ("PADDING", padding),
        ("DILATION", dilation),
        ("MEAN", mean),
    ];
    let constants = constants.map(|(name, value)| Ok((name, word(value)?)));
    word(image.len())?;
    word(n * out_h * out_w * c * k_h * k_w)?;
    Ok(Dispatch {
        kernel: Kernel {
            name: "im2col",
            source: include_str!("../../shaders/im2col.wgsl").into(),
            entry,
            constants: constants.into_iter().collect::<Result<_>>()?,
        },
        params: Params::new().with("batch", n)?,
        // Where there is no mean, `forward` does not read it.
        bindings: match (entry, mean) {
            ("forward", 0) => vec![Slot::Input(0), Slot::Output, Slot::Input(0)],
            ("forward", _) => vec![Slot::Input(0), Slot::Output, Slot::Input(1)],
            _ => vec![Slot::Input(0), Slot::Output],
        },
        grid: Grid::Invocations(invocations),
    }
    .into())
}

impl Op for Im2col {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let patches = columns_shape(&self.window, inputs[0])?;
        match inputs.get(1) {
            Some(mean) if mean.is_empty() || !patches.dims()[1].is_multiple_of(mean.len()) => Err(
                format!("a mean {mean} does not repeat along patches {patches}"),
            ),
            _ => Ok(patches),
        }
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let inputs = y.all_inputs();
        let image = inputs[0].shape();
        let mut grads = vec![Some(y_grad.col2im(self.window, image))];
        if let Some(mean) = inputs.get(1) {
            let len = mean.len();
            let rows = y_grad.reshape([y_grad.len() / len, len]);
            let sum = rows.reduce_sum([1, len], -1.0);
            grads.push(Some(sum.reshape(mean.shape())));
        }
        grads
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        dispatch(
            &self.window,
            ctx.inputs[0],
            ctx.inputs.get(1).map_or(0, |mean| mean.len()),
            "forward",
            ctx.output.len().div_ceil(4),
        )
    }
}

impl Op for Col2im {
    fn name(&self) -> &'static str {
        "col2im"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let expected = columns_shape(&self.window, &self.image)?;
        if *inputs[0] != expected {
            return Err(format!(
                "{} has patches {expected}, not {}",
                self.image, inputs[0]
            ));
        }
        Ok(self.image.clone())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![Some(y_grad.im2col(self.window))]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        dispatch(&self.window, &self.image, 0, "adjoint", ctx.output.len())
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradients::{Case, case, check, check_tiled, reference, windows};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for (g, window) in windows() {
            let image = [2, 3, 7, 6];
            let columns =
                reference::im2col(&reference::Tensor::from_fn(&image, |_| 0.0), [3, 2], g).shape;
            cases.push(case(
                &format!("im2col {g:?}"),
                &[&image],
                move |t| t[0].im2col(window),
                move |t| reference::im2col(&t[0], [3, 2], g),
            ));
            for len in [18, 6] {
                cases.push(case(
                    &format!("im2col minus a mean of {len} {g:?}"),
                    &[&image, &[1, len]],
                    move |t| t[0].im2col_centred(t[1], window),
                    move |t| {
                        let patches = reference::im2col(&t[0], [3, 2], g);
                        let mean = &t[1];
                        reference::Tensor::from_fn(&patches.shape, |i| {
                            patches.data[i] - mean.data[i % len]
                        })
                    },
                ));
            }
            cases.push(case(
                &format!("col2im {g:?}"),
                &[&columns],
                move |t| t[0].col2im(window, image),
                move |t| reference::col2im(&t[0], [3, 2], g, &image),
            ));
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("im2col", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("im2col", &cases());
    }
}
