//! 2-D convolution (cross-correlation, as in PyTorch) as an implicit matrix product, and its
//! gradients.
//!
//! The padded image is one node and the convolution itself reads only inside it: no kernel tests
//! for borders, and its addresses are affine in (channel, ky, kx) and (image, oh, ow), which makes
//! forward, input gradient and weight gradient the same [`contraction`]. The input gradient is
//! the convolution of the output gradient with the reversed kernels; with a stride, one such for each
//! rest on division by it.
//!
//! Bound: 2 N O `out_h` `out_w` (C / groups) `k_h` `k_w` operations, each direction.

use crate::graph::op::{Lowered, Lowering, Slot};
use crate::graph::{Cost, Op, Tensor};
use crate::ops::Padding2d;
use crate::ops::contraction::{Bias, Contraction};
use crate::shape::Shape;
use crate::{Error, Result};

/// Stride, padding, dilation and groups, as in PyTorch's `Conv2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    /// Distance between neighbouring outputs in pixels.
    pub stride: usize,
    /// Zeros around the image in pixels.
    pub padding: usize,
    /// Distance between neighbouring taps in pixels.
    pub dilation: usize,
    /// Channels are divided into this many groups that do not mix.
    pub groups: usize,
}

impl Conv2dGeometry {
    /// Stride 1, no padding, dilation 1, one group: PyTorch's defaults.
    pub const UNIT: Self = Self {
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 1,
    };
}

impl Default for Conv2dGeometry {
    fn default() -> Self {
        Self::UNIT
    }
}

/// The convolution of an image that is padded already. See [`Tensor::conv2d`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    geometry: Conv2dGeometry,
    /// The weight, of one tap, is that of the convolution whose gradient this is: in each group its
    /// rows are channels and its columns outputs.
    transposed: bool,
}

/// The gradient of [`Conv2d`] with respect to its kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dWeightGrad {
    geometry: Conv2dGeometry,
    kernel_size: [usize; 2],
}

impl Tensor<'_> {
    /// The convolution of this [N, C, H, W] with `weight` [O, C / groups, `k_h`, `k_w`] and `bias` `[O]`:
    /// [N, O, `out_h`, `out_w`]. Fails if the sizes do not fit.
    #[must_use]
    #[track_caller]
    pub fn conv2d(self, weight: Self, bias: Option<Self>, geometry: Conv2dGeometry) -> Self {
        let p = geometry.padding;
        let mut image = self;
        if p > 0 {
            let [_, _, h, w] = self.dims();
            let padding = Padding2d {
                before: [signed(p); 2],
                size: [h, w].map(|size| size.saturating_add(p.saturating_mul(2))),
                spacing: [1, 1],
            };
            image = self.pad2d(padding);
        }
        let inputs: Vec<Self> = [image, weight].into_iter().chain(bias).collect();
        let transposed = false;
        let op = Conv2d {
            geometry,
            transposed,
        };
        self.graph().add(op, &inputs)
    }
}

/// Sizes of one convolution over a padded image.
struct ConvSizes {
    batch: usize,
    groups: usize,
    /// Channels and outputs of one group.
    channels: usize,
    outputs: usize,
    image: [usize; 2],
    kernel: [usize; 2],
    out: [usize; 2],
}

impl Conv2dGeometry {
    fn sizes(&self, image: &Shape, weight: &Shape) -> Result<ConvSizes, String> {
        let &[batch, c, h, w] = image.dims() else {
            return Err(format!("the image {image} is not NCHW"));
        };
        let &[o, c_group, k_h, k_w] = weight.dims() else {
            return Err(format!(
                "the weight {weight} is not [O, C / groups, k_h, k_w]"
            ));
        };
        let groups = self.groups;
        if groups == 0 || c % groups != 0 || o % groups != 0 || c / groups != c_group {
            return Err(format!(
                "{c} channels in {groups} groups do not meet weight {weight}"
            ));
        }
        let window = crate::ops::Window {
            kernel_size: [k_h, k_w],
            stride: self.stride,
            padding: 0,
            dilation: self.dilation,
        };
        let out = window.positions(h, w).ok_or_else(|| {
            format!(
                "kernel {weight} of stride {} does not fit padded {image}",
                self.stride
            )
        })?;
        Ok(ConvSizes {
            batch,
            groups,
            channels: c_group,
            outputs: o / groups,
            image: [h, w],
            kernel: [k_h, k_w],
            out,
        })
    }
}

impl ConvSizes {
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn positions(&self) -> usize {
        self.out[0] * self.out[1]
    }

    fn flops(&self) -> u64 {
        let sums = self.batch * self.groups * self.outputs * self.positions();
        2 * (sums * self.channels * self.taps()) as u64
    }
}

fn cost(sizes: &Result<ConvSizes, String>, inputs: &[&Shape], output: &Shape) -> Cost {
    Cost {
        flops: sizes.as_ref().map_or(0, ConvSizes::flops),
        bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let s = self.sizes(inputs)?;
        let outputs = s.groups * s.outputs;
        if let Some(bias) = inputs.get(2)
            && bias.dims() != [outputs]
        {
            return Err(format!("the bias {bias} is not [{outputs}]"));
        }
        Ok([s.batch, outputs, s.out[0], s.out[1]].into())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let inputs = y.all_inputs();
        let (image, weight) = (inputs[0], inputs[1]);
        let s = match self.geometry.sizes(&image.shape(), &weight.shape()) {
            Ok(sizes) if !self.transposed => sizes,
            _ => {
                let message = "second derivatives of convolutions are not implemented";
                y.graph().fail(Error::graph("conv2d", message));
                return vec![None; inputs.len()];
            }
        };
        let image_grad = self.image_grad(&s, weight, y_grad);
        let grad = Conv2dWeightGrad {
            geometry: self.geometry,
            kernel_size: s.kernel,
        };
        let weight_grad = y.graph().add(grad, &[image, y_grad]);
        let mut grads = vec![Some(image_grad), Some(weight_grad)];
        if inputs.len() > 2 {
            let outputs = s.groups * s.outputs;
            let summed = y_grad.reduce_sum([1, outputs, 1, 1], 1.0);
            grads.push(Some(summed.reshape([outputs])));
        }
        grads
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        cost(&self.sizes(inputs), inputs, output)
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let s = self.sizes(ctx.inputs).map_err(Error::bug)?;
        let (plane, row) = (s.image[0] * s.image[1], s.image[1]);
        let (stride, dilation) = (self.geometry.stride, self.geometry.dilation);
        let (k_len, positions) = (s.channels * s.taps(), s.positions());
        let bias = ctx.inputs.get(2).map(|_| Slot::Input(2));
        let (a_m, a_k) = match self.transposed {
            false => ([0, 0, k_len], [s.taps(), s.kernel[1], 1]),
            true => ([0, 0, 1], [s.outputs, 1, 1]),
        };
        // Row m is the output channel, column n the position, k the tap.
        let contraction = Contraction {
            m: s.outputs,
            n: s.batch * positions,
            batch: s.groups,
            k: [s.channels, s.kernel[0], s.kernel[1]],
            a_m,
            a_k,
            a_batch: s.outputs * k_len,
            b_k: [plane, dilation * row, dilation],
            b_n: [s.groups * s.channels * plane, stride * row, stride],
            b_batch: s.channels * plane,
            c_m: [0, 0, positions],
            c_n: [s.groups * s.outputs * positions, s.out[1], 1],
            c_batch: s.outputs * positions,
            m_extents: [1, s.outputs],
            n_extents: s.out,
            bias: if bias.is_some() {
                Bias::PerRow
            } else {
                Bias::None
            },
            ..Contraction::default()
        };
        contraction.lower(
            ctx.variants,
            Slot::Input(1),
            Slot::Input(0),
            bias,
            Slot::Output,
        )
    }
}

impl Conv2d {
    fn sizes(&self, inputs: &[&Shape]) -> Result<ConvSizes, String> {
        let (image, weight) = (inputs[0], inputs[1]);
        match *weight.dims() {
            [rows, columns, 1, 1] if self.transposed => {
                let groups = self.geometry.groups.max(1);
                let turned = Shape::from([groups * columns, rows / groups, 1, 1]);
                self.geometry.sizes(image, &turned)
            }
            _ => self.geometry.sizes(image, weight),
        }
    }

    /// d(loss)/d(padded image), computed for the pixels inside the padding only: those of the
    /// padding are zero by definition.
    fn image_grad<'g>(&self, s: &ConvSizes, weight: Tensor<'g>, y_grad: Tensor<'g>) -> Tensor<'g> {
        let padding = self.geometry.padding;
        let inner = [0, 1].map(|i| s.image[i] - 2 * padding);
        let inner_grad = if self.geometry.stride > 1 && self.geometry.dilation == 1 {
            self.strided_image_grad(s, weight, y_grad, inner)
        } else {
            self.spread_image_grad(s, weight, y_grad, inner)
        };
        inner_grad.pad2d(Padding2d {
            before: [signed(padding); 2],
            size: s.image,
            spacing: [1, 1],
        })
    }

    /// The convolution of the output gradient, zeros put in for the stride, with the reversed
    /// kernels.
    fn spread_image_grad<'g>(
        &self,
        s: &ConvSizes,
        weight: Tensor<'g>,
        y_grad: Tensor<'g>,
        inner: [usize; 2],
    ) -> Tensor<'g> {
        let Conv2dGeometry {
            stride,
            padding,
            dilation,
            ..
        } = self.geometry;
        // So much room that the reversed kernels reach every pixel that the forward pass read.
        let reach = [0, 1].map(|i| dilation * (s.kernel[i] - 1));
        let room = Padding2d {
            before: reach.map(|r| signed(r) - signed(padding)),
            size: [0, 1].map(|i| inner[i] + reach[i]),
            spacing: [stride; 2],
        };
        reversed_convolution(s, weight, y_grad.pad2d(room), dilation)
    }

    /// With a stride, pixel (y, x) meets only the taps that leave the same rest on division by it:
    /// the pixels of one rest are a convolution with those taps, and no zero is multiplied.
    fn strided_image_grad<'g>(
        &self,
        s: &ConvSizes,
        weight: Tensor<'g>,
        y_grad: Tensor<'g>,
        inner: [usize; 2],
    ) -> Tensor<'g> {
        let (stride, padding) = (self.geometry.stride, self.geometry.padding);
        let inside = |spacing: usize| Padding2d {
            before: [-signed(padding); 2],
            size: inner,
            spacing: [spacing; 2],
        };
        if s.kernel == [1, 1] {
            // One tap meets every stride-th pixel, and nothing the others.
            return reversed_convolution(s, weight, y_grad, 1).pad2d(inside(stride));
        }
        let channels = s.groups * s.channels;
        let planes = s.batch * channels;
        let size = s.image.map(|pixels| pixels.div_ceil(stride));
        let mut parts = Vec::new();
        for rest in (0..stride).flat_map(|y| (0..stride).map(move |x| [y, x])) {
            let taps = [0, 1].map(|i| s.kernel[i].saturating_sub(rest[i]).div_ceil(stride));
            let plane = [1, planes * size[0] * size[1]];
            if taps.contains(&0) {
                parts.push(weight.graph().constant(0.0, plane));
                continue;
            }
            let some = weight.slice(2, rest[0], stride, taps[0]);
            let some = some.slice(3, rest[1], stride, taps[1]);
            let room = Padding2d {
                before: taps.map(|t| signed(t - 1)),
                size: [0, 1].map(|i| size[i] + taps[i] - 1),
                spacing: [1, 1],
            };
            let part = reversed_convolution(s, some, y_grad.pad2d(room), 1);
            parts.push(part.reshape(plane));
        }
        let by_rest = [stride, stride, planes * size[0], size[1]];
        let whole = [s.batch, channels, size[0] * stride, size[1] * stride];
        let all = weight.graph().concat(&parts, 0).reshape(by_rest);
        all.permute(&[2, 0, 3, 1]).reshape(whole).pad2d(inside(1))
    }
}

/// `image` [N, O, ..] convolved with `weight` [O, C / groups, taps] reversed and its channels
/// exchanged, without a stride.
fn reversed_convolution<'g>(
    s: &ConvSizes,
    weight: Tensor<'g>,
    image: Tensor<'g>,
    dilation: usize,
) -> Tensor<'g> {
    let [_, _, k_h, k_w] = weight.dims();
    let transposed = [k_h, k_w] == [1, 1];
    // [O, C, taps] to [C, O, taps reversed], in each group.
    let reversed = if transposed {
        weight
    } else if s.groups == 1 {
        weight.permute_and_reverse_last(&[1, 0, 2, 3], 2)
    } else {
        let split = [s.groups, s.outputs, s.channels, k_h * k_w];
        let split = weight.reshape(split);
        let reversed = split.permute_and_reverse_last(&[0, 2, 1, 3], 1);
        reversed.reshape([s.groups * s.channels, s.outputs, k_h, k_w])
    };
    let geometry = Conv2dGeometry {
        stride: 1,
        padding: 0,
        dilation,
        groups: s.groups,
    };
    let op = Conv2d {
        geometry,
        transposed,
    };
    image.graph().add(op, &[image, reversed])
}

fn signed(v: usize) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

impl Op for Conv2dWeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (&[_, c, ..], &[_, o, ..]) = (inputs[0].dims(), inputs[1].dims()) else {
            return Err("inputs are not NCHW".into());
        };
        let [k_h, k_w] = self.kernel_size;
        Ok([o, c / self.geometry.groups, k_h, k_w].into())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "second derivatives of convolutions are not implemented";
        y.graph().fail(Error::graph(self.name(), message));
        vec![None; 2]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        cost(&self.geometry.sizes(inputs[0], output), inputs, output)
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let s = self
            .geometry
            .sizes(ctx.inputs[0], ctx.output)
            .map_err(Error::bug)?;
        let (plane, row) = (s.image[0] * s.image[1], s.image[1]);
        let (stride, dilation) = (self.geometry.stride, self.geometry.dilation);
        let (taps, positions) = (s.taps(), s.positions());
        // Row m is the output channel, column n the tap, k the position.
        let contraction = Contraction {
            m: s.outputs,
            n: s.channels * taps,
            batch: s.groups,
            k: [s.batch, s.out[0], s.out[1]],
            a_m: [0, 0, positions],
            a_k: [s.groups * s.outputs * positions, s.out[1], 1],
            a_batch: s.outputs * positions,
            b_k: [s.groups * s.channels * plane, stride * row, stride],
            b_n: [plane, dilation * row, dilation],
            b_batch: s.channels * plane,
            c_m: [0, 0, s.channels * taps],
            c_n: [taps, s.kernel[1], 1],
            c_batch: s.outputs * s.channels * taps,
            m_extents: [1, s.outputs],
            n_extents: s.kernel,
            ..Contraction::default()
        };
        contraction.lower(
            ctx.variants,
            Slot::Input(1),
            Slot::Input(0),
            None,
            Slot::Output,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Conv2dGeometry;
    use crate::ops::gradients::{Case, Geometry, case, check, check_tiled, geometry, reference};

    fn cases() -> Vec<Case> {
        let table: [([usize; 4], [usize; 4], Geometry); 10] = [
            ([2, 3, 7, 6], [5, 3, 3, 3], geometry(1, 1, 1, 1)),
            ([2, 3, 11, 9], [5, 3, 3, 3], geometry(2, 1, 1, 1)),
            ([1, 4, 9, 9], [6, 2, 3, 3], geometry(1, 1, 1, 2)),
            ([2, 4, 9, 8], [8, 1, 3, 3], geometry(2, 1, 1, 4)),
            ([2, 3, 12, 10], [4, 3, 3, 3], geometry(1, 2, 2, 1)),
            ([2, 5, 6, 7], [7, 5, 1, 1], geometry(2, 0, 1, 1)),
            ([2, 4, 6, 7], [6, 2, 1, 1], geometry(2, 1, 1, 2)),
            ([1, 2, 9, 9], [3, 2, 2, 5], geometry(3, 2, 1, 1)),
            ([1, 2, 5, 5], [3, 2, 3, 3], geometry(1, 3, 1, 1)),
            ([3, 1, 6, 6], [66, 1, 6, 6], geometry(1, 0, 1, 1)),
        ];
        let mut cases = Vec::new();
        for (x, w, g) in table {
            cases.push(case(
                &format!("conv2d {x:?} {w:?} {g:?}"),
                &[&x, &w, &[w[0]]],
                move |t| {
                    let geometry = Conv2dGeometry {
                        stride: g.stride,
                        padding: g.padding,
                        dilation: g.dilation,
                        groups: g.groups,
                    };
                    t[0].conv2d(t[1], Some(t[2]), geometry)
                },
                move |t| reference::conv2d(&t[0], &t[1], &t[2], g),
            ));
        }
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("conv2d", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("conv2d", &cases());
    }
}
