//! Patches of images times a matrix, block by block, without the patches and without the zeros of the padding; and
//! the adjoint, `col2im_matmul`.
//!
//! On small images much of a patch matrix is padding: of 3x3 patches of a 4x4 image 31 % of all numbers, of a 2x2
//! image 56 %. Which taps a patch has inside the image depends on its row and column alone. So positions with the same
//! taps make one region, and each region is a [`contraction`] of its own over those taps only, which reads the image.
//! Regions and their sizes are known when the graph is compiled.
//!
//! Bound: 2 F' operations for each channel of each tap inside the image.

use std::ops::Range;

use crate::graph::op::{Lowered, Lowering, Slot};
use crate::graph::{Cost, Op, Tensor};
use crate::ops::Window;
use crate::ops::contraction::{Bias, Contraction};
use crate::ops::matmul::symmetric_part;
use crate::shape::Shape;
use crate::{Error, Result};

/// See [`Tensor::im2col_matmul`].
#[derive(Debug, PartialEq)]
pub struct Im2colMatmul {
    window: Window,
    b_is_symmetric: bool,
}

/// The gradient of [`Im2colMatmul`] with respect to the images, for stride 1: every row times B's transpose, added
/// back where its patch came from.
#[derive(Debug, PartialEq)]
struct Col2imMatmul {
    window: Window,
    image: Shape,
}

impl Tensor<'_> {
    /// Rows of its [`Tensor::im2col`] times `b`, block by block: this [N, C, H, W] and `b` [F, F'] give
    /// [N * `out_h` * `out_w`, blocks * F'], where F is the number of features of a block, and blocks F = C `k_h` `k_w`.
    /// `bias` [blocks * F'] is added to every row.
    ///
    /// With `b_is_symmetric` the gradient of `b` is its symmetric part, as in [`crate::ops::MatMul`].
    ///
    /// Fails if the sizes do not fit, a block is no whole number of channels, or a patch has no tap inside the
    /// image or, at stride 1, a pixel is in no patch.
    #[must_use]
    #[track_caller]
    pub fn im2col_matmul(
        self,
        b: Self,
        bias: Option<Self>,
        window: Window,
        b_is_symmetric: bool,
    ) -> Self {
        let inputs: Vec<Self> = [self, b].into_iter().chain(bias).collect();
        let op = Im2colMatmul {
            window,
            b_is_symmetric,
        };
        self.graph().add(op, &inputs)
    }
}

/// Percent of the whole work that regions may take: each region is a dispatch or two of its own.
const WORTH_REGIONS: usize = 85;

/// Whether [`Tensor::im2col_matmul`] takes clearly less work than `im2col` and a product.
///
/// Both are counted in rows times taps. A region's rows, those of all images together, fill whole tiles of 32, so
/// that a few images of many regions compute more than they save.
pub(crate) fn is_cheaper_by_regions(image: &Shape, window: &Window) -> bool {
    let &[n, _, h, w] = image.dims() else {
        return false;
    };
    let Some([out_h, out_w]) = window.positions(h, w) else {
        return false;
    };
    if !window.reaches_all([h, w]) {
        return false;
    }
    let by_regions: usize = window
        .regions([h, w])
        .iter()
        .map(|region| (n * region.rows()).next_multiple_of(32) * region.taps())
        .sum();
    let [k_h, k_w] = window.kernel_size;
    let whole = (n * out_h * out_w).next_multiple_of(32) * k_h * k_w;
    by_regions * 100 <= whole * WORTH_REGIONS
}

/// Places along one axis that have the same taps inside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    places: Range<usize>,
    taps: Range<usize>,
}

/// Spans of the `places` places of an axis, where place i has tap t if `is_inside(i, t)`. The taps of a place follow
/// one another.
fn spans(places: usize, taps: usize, is_inside: impl Fn(usize, usize) -> bool) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for place in 0..places {
        let first = (0..taps).find(|&tap| is_inside(place, tap)).unwrap_or(0);
        let count = (0..taps).filter(|&tap| is_inside(place, tap)).count();
        let taps = first..first + count;
        match spans.last_mut() {
            Some(last) if last.taps == taps => last.places.end = place + 1,
            _ => spans.push(Span {
                places: place..place + 1,
                taps,
            }),
        }
    }
    spans
}

/// Rows and columns of places with the same taps.
struct Region([Span; 2]);

impl Region {
    /// Of one image.
    fn rows(&self) -> usize {
        self.0.iter().map(|span| span.places.len()).product()
    }

    fn taps(&self) -> usize {
        self.0.iter().map(|span| span.taps.len()).product()
    }

    /// First place and first tap of each axis.
    fn from(&self) -> [[usize; 2]; 2] {
        let [y, x] = &self.0;
        [
            [y.places.start, x.places.start],
            [y.taps.start, x.taps.start],
        ]
    }

    fn of(axes: [Vec<Span>; 2]) -> Vec<Self> {
        let [rows, columns] = axes;
        let pairs = rows.into_iter().flat_map(|row| {
            let with = columns.clone().into_iter();
            with.map(move |column| Self([row.clone(), column]))
        });
        pairs.collect()
    }
}

impl Window {
    /// Regions of patches: places are patches.
    fn regions(&self, image: [usize; 2]) -> Vec<Region> {
        let positions = self.positions(image[0], image[1]).unwrap_or([0; 2]);
        let Self {
            stride,
            padding,
            dilation,
            ..
        } = *self;
        Region::of([0, 1].map(|axis| {
            spans(positions[axis], self.kernel_size[axis], |place, tap| {
                let at = place * stride + tap * dilation;
                (padding..padding + image[axis]).contains(&at)
            })
        }))
    }

    /// Whether there are patches, every one has taps inside the image and, at stride 1, every pixel is in some patch.
    fn reaches_all(&self, image: [usize; 2]) -> bool {
        let mut regions = self.regions(image);
        if self.stride == 1 {
            regions.extend(self.adjoint_regions(image));
        }
        !regions.is_empty() && regions.iter().all(|region| region.taps() > 0)
    }

    /// Regions of the adjoint at stride 1: places are pixels. Taps are in reverse order, and a pixel has those whose patch
    /// exists.
    fn adjoint_regions(&self, image: [usize; 2]) -> Vec<Region> {
        let positions = self.positions(image[0], image[1]).unwrap_or([0; 2]);
        Region::of([0, 1].map(|axis| {
            let kernel = self.kernel_size[axis];
            spans(image[axis], kernel, |pixel, tap| {
                let at = pixel + self.padding + tap * self.dilation;
                let before = (kernel - 1) * self.dilation;
                (before..before + positions[axis]).contains(&at)
            })
        }))
    }
}

/// Images, patches and the matrix.
struct RegionSizes {
    images: usize,
    image: [usize; 2],
    out: [usize; 2],
    blocks: usize,
    /// Channels of a block.
    channels: usize,
    taps: [usize; 2],
    /// F'.
    outputs: usize,
}

impl RegionSizes {
    fn of(window: &Window, image: &Shape, b: &Shape) -> Result<Self, String> {
        let &[images, c, h, w] = image.dims() else {
            return Err(format!("{image} is not NCHW"));
        };
        let out = window
            .positions(h, w)
            .filter(|_| window.reaches_all([h, w]))
            .ok_or_else(|| format!("patches of {window:?} do not cover {image}"))?;
        let &[features, outputs] = b.dims() else {
            return Err(format!("{b} is no matrix"));
        };
        let taps: usize = window.kernel_size.iter().product();
        let channels = features / taps;
        if features == 0 || features % taps != 0 || c % channels != 0 {
            return Err(format!("patches of {image} are no blocks of rows of {b}"));
        }
        Ok(Self {
            images,
            image: [h, w],
            out,
            blocks: c / channels,
            channels,
            taps: window.kernel_size,
            outputs,
        })
    }

    fn flops(&self, regions: &[Region]) -> u64 {
        let products: usize = regions.iter().map(|r| r.rows() * r.taps()).sum();
        let channels = self.blocks * self.channels;
        2 * (self.images * products * channels * self.outputs) as u64
    }
}

/// One dispatch, or a few, for each region. Their scratch memory is the same, since they run one after the other.
fn joined(parts: Vec<Lowered>) -> Lowered {
    let mut all = Lowered::default();
    for part in parts {
        all.dispatches.extend(part.dispatches);
        for (i, len) in part.scratch.into_iter().enumerate() {
            match all.scratch.get_mut(i) {
                Some(most) => *most = len.max(*most),
                None => all.scratch.push(len),
            }
        }
    }
    all
}

impl Op for Im2colMatmul {
    fn name(&self) -> &'static str {
        "im2col_matmul"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let s = RegionSizes::of(&self.window, inputs[0], inputs[1])?;
        if self.b_is_symmetric && s.outputs != s.channels * s.taps[0] * s.taps[1] {
            return Err(format!("{} is not symmetric", inputs[1]));
        }
        let columns = s.blocks * s.outputs;
        if let Some(&bias) = inputs.get(2)
            && bias.dims() != [columns]
        {
            return Err(format!("the bias {bias} is not [{columns}]"));
        }
        Ok([s.images * s.out[0] * s.out[1], columns].into())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let inputs = y.all_inputs();
        let (x, b) = (inputs[0], inputs[1]);
        let image = x.shape();
        let s = match RegionSizes::of(&self.window, &image, &b.shape()) {
            Ok(sizes) => sizes,
            Err(message) => {
                y.graph().fail(Error::bug(message));
                return vec![None; inputs.len()];
            }
        };
        let features = s.channels * s.taps[0] * s.taps[1];
        let rows = s.images * s.out[0] * s.out[1] * s.blocks;
        let by_block = y_grad.reshape([rows, s.outputs]);

        let x_grad = if self.window.stride == 1 {
            // [channels, taps reversed, F']
            let b = b.reshape([s.channels, s.taps[0] * s.taps[1], s.outputs]);
            let b = b.reverse(1).reshape([features, s.outputs]);
            let window = self.window;
            y.graph().add(Col2imMatmul { window, image }, &[y_grad, b])
        } else {
            let patches = [rows / s.blocks, s.blocks * features];
            let patches = by_block.matmul_t(b).reshape(patches);
            patches.col2im(self.window, image)
        };

        let patches = x.im2col(self.window).reshape([rows, features]);
        let b_grad = match self.b_is_symmetric {
            true => symmetric_part(patches, by_block, 1.0),
            false => patches.t_matmul(by_block),
        };
        let mut grads = vec![Some(x_grad), Some(b_grad)];
        if let Some(bias) = inputs.get(2) {
            let len = bias.len();
            grads.push(Some(y_grad.reduce_sum([1, len], 1.0).reshape([len])));
        }
        grads
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        let flops = RegionSizes::of(&self.window, inputs[0], inputs[1])
            .map_or(0, |s| s.flops(&self.window.regions(s.image)));
        Cost {
            flops,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let s = RegionSizes::of(&self.window, ctx.inputs[0], ctx.inputs[1]).map_err(Error::bug)?;
        let [h, w] = s.image;
        let (plane, columns) = (h * w, s.blocks * s.outputs);
        let (stride, dilation) = (self.window.stride, self.window.dilation);
        let bias = ctx.inputs.get(2).map(|_| Slot::Input(2));
        let one = |region: &Region| {
            let [y, x] = &region.0;
            let [[row, column], [tap_y, tap_x]] = region.from();
            let [from_y, from_x] = [
                row * stride + tap_y * dilation,
                column * stride + tap_x * dilation,
            ];
            // The first tap of a region is inside the image.
            let at_y = from_y - self.window.padding;
            let at_x = from_x - self.window.padding;
            // Row m is the feature of the result, column n the patch, k the channel and tap.
            let contraction = Contraction {
                m: s.outputs,
                n: s.images * region.rows(),
                batch: s.blocks,
                k: [s.channels, y.taps.len(), x.taps.len()],
                a_m: [0, 0, 1],
                a_k: [
                    s.taps[0] * s.taps[1] * s.outputs,
                    s.taps[1] * s.outputs,
                    s.outputs,
                ],
                a_batch: 0,
                a_from: (tap_y * s.taps[1] + tap_x) * s.outputs,
                b_k: [plane, dilation * w, dilation],
                b_n: [s.blocks * s.channels * plane, stride * w, stride],
                b_batch: s.channels * plane,
                b_from: at_y * w + at_x,
                c_m: [0, 0, 1],
                c_n: [s.out[0] * s.out[1] * columns, s.out[1] * columns, columns],
                c_batch: s.outputs,
                c_from: (row * s.out[1] + column) * columns,
                m_extents: [1, s.outputs],
                n_extents: [y.places.len(), x.places.len()],
                bias: match bias {
                    Some(_) => Bias::PerRow,
                    None => Bias::None,
                },
                ..Contraction::default()
            };
            let (b, x) = (Slot::Input(1), Slot::Input(0));
            contraction.lower(ctx.variants, b, x, bias, Slot::Output)
        };
        let regions = self.window.regions(s.image);
        Ok(joined(regions.iter().map(one).collect::<Result<_>>()?))
    }
}

impl Col2imMatmul {
    fn sizes(&self, b: &Shape) -> Result<RegionSizes, String> {
        RegionSizes::of(&self.window, &self.image, b)
    }
}

impl Op for Col2imMatmul {
    fn name(&self) -> &'static str {
        "col2im_matmul"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let s = self.sizes(inputs[1])?;
        let expected = Shape::from([s.images * s.out[0] * s.out[1], s.blocks * s.outputs]);
        match *inputs[0] == expected {
            true => Ok(self.image.clone()),
            false => Err(format!("rows {} are not {expected}", inputs[0])),
        }
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "second derivatives of im2col_matmul are not implemented";
        y.graph().fail(Error::graph("col2im_matmul", message));
        vec![None; 2]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        let flops = self
            .sizes(inputs[1])
            .map_or(0, |s| s.flops(&self.window.adjoint_regions(s.image)));
        Cost {
            flops,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let s = self.sizes(ctx.inputs[1]).map_err(Error::bug)?;
        let [h, w] = s.image;
        let (plane, columns) = (h * w, s.blocks * s.outputs);
        let Window {
            padding, dilation, ..
        } = self.window;
        let before = s.taps.map(|taps| (taps - 1) * dilation);
        let one = |region: &Region| {
            let [y, x] = &region.0;
            let [[row, column], [tap_y, tap_x]] = region.from();
            let at_y = row + padding + tap_y * dilation - before[0];
            let at_x = column + padding + tap_x * dilation - before[1];
            // Row m is the channel, column n the pixel, k the tap and the feature of a row.
            let contraction = Contraction {
                m: s.channels,
                n: s.images * region.rows(),
                batch: s.blocks,
                k: [y.taps.len(), x.taps.len(), s.outputs],
                a_m: [0, 0, s.taps[0] * s.taps[1] * s.outputs],
                a_k: [s.taps[1] * s.outputs, s.outputs, 1],
                a_batch: 0,
                a_from: (tap_y * s.taps[1] + tap_x) * s.outputs,
                b_k: [dilation * s.out[1] * columns, dilation * columns, 1],
                b_n: [s.out[0] * s.out[1] * columns, s.out[1] * columns, columns],
                b_batch: s.outputs,
                b_from: (at_y * s.out[1] + at_x) * columns,
                c_m: [0, 0, plane],
                c_n: [s.blocks * s.channels * plane, w, 1],
                c_batch: s.channels * plane,
                c_from: row * w + column,
                m_extents: [1, s.channels],
                n_extents: [y.places.len(), x.places.len()],
                ..Contraction::default()
            };
            let (b, rows) = (Slot::Input(1), Slot::Input(0));
            contraction.lower(ctx.variants, b, rows, None, Slot::Output)
        };
        let regions = self.window.adjoint_regions(s.image);
        Ok(joined(regions.iter().map(one).collect::<Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradients::{Case, case, check, check_tiled, geometry, reference, windows};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        let small = Window {
            kernel_size: [3, 3],
            stride: 1,
            padding: 1,
            dilation: 1,
        };
        cases.push(case(
            "im2col_matmul with a symmetric matrix",
            &[&[5, 4, 2, 4], &[18, 18]],
            move |x| {
                let b = x[1] + x[1].permute(&[1, 0]);
                x[0].im2col_matmul(b, None, small, true)
            },
            |x| {
                let patches = reference::im2col(&x[0], [3, 3], geometry(1, 1, 1, 1));
                let b = x[1].zip(&x[1].permute(&[1, 0]), |b, t| b + t);
                let y = reference::matmul(&patches.reshape(&[80, 18]), &b, false, false);
                y.reshape(&[40, 36])
            },
        ));
        for (g, window) in windows() {
            let image = [2, 3, 7, 6];
            for (blocks, is_biased) in [(1, true), (3, false)] {
                let features = 18 / blocks;
                let shapes: [&[usize]; 3] = [&image, &[features, 5], &[5 * blocks]];
                cases.push(case(
                    &format!("im2col_matmul of {blocks} blocks {g:?}"),
                    &shapes[..2 + usize::from(is_biased)],
                    move |t| t[0].im2col_matmul(t[1], t.get(2).copied(), window, false),
                    move |t| {
                        let patches = reference::im2col(&t[0], [3, 2], g);
                        let rows = patches.shape[0];
                        let by_block = patches.reshape(&[rows * blocks, features]);
                        let y = reference::matmul(&by_block, &t[1], false, false);
                        let y = y.reshape(&[rows, 5 * blocks]);
                        reference::Tensor::from_fn(&y.shape, |i| {
                            y.data[i] + t.get(2).map_or(0.0, |bias| bias.data[i % (5 * blocks)])
                        })
                    },
                ));
            }
        }
        cases
    }

    /// Long enough that k is split: the parts of a region are added where the region is.
    fn of_many_channels() -> Case {
        let window = window(1, 1, 1);
        case(
            "im2col_matmul of many channels",
            &[&[1, 70, 3, 2], &[630, 2]],
            move |x| x[0].im2col_matmul(x[1], None, window, false),
            |x| {
                let patches = reference::im2col(&x[0], [3, 3], geometry(1, 1, 1, 1));
                reference::matmul(&patches, &x[1], false, false)
            },
        )
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        let mut cases = cases();
        cases.push(of_many_channels());
        check("im2col_matmul", &cases);
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("im2col_matmul", &cases());
    }

    fn window(stride: usize, padding: usize, dilation: usize) -> Window {
        Window {
            kernel_size: [3, 3],
            stride,
            padding,
            dilation,
        }
    }

    #[test]
    fn regions_have_the_taps_that_are_inside() {
        let of = |size, window: Window| {
            let regions = window.regions([size; 2]);
            let inside: usize = regions.iter().map(|r| r.rows() * r.taps()).sum();
            (regions.len(), inside)
        };
        // Along an axis: 2, 3, 3, 2 of 3 taps; 2, 2; without padding, all.
        assert_eq!(of(4, window(1, 1, 1)), (9, 100));
        assert_eq!(of(2, window(1, 1, 1)), (4, 16));
        assert_eq!(of(4, window(1, 0, 1)), (1, 36));
        let back: usize = window(1, 1, 1)
            .adjoint_regions([4; 2])
            .iter()
            .map(|r| r.rows() * r.taps())
            .sum();
        assert_eq!(back, 100);
    }

    #[test]
    fn few_images_are_taken_whole() {
        let window = window(1, 1, 1);
        let is_cheaper = |n, size| is_cheaper_by_regions(&[n, 64, size, size].into(), &window);
        assert!(is_cheaper(32, 2) && is_cheaper(32, 4) && is_cheaper(16, 4));
        assert!(!is_cheaper(4, 4) && !is_cheaper(32, 32));
    }

    /// Taking the patches says what is wrong; here they only are not worth it.
    #[test]
    fn what_has_no_regions_is_taken_whole() {
        let is_cheaper = |image: &[usize], padding| {
            is_cheaper_by_regions(&image.to_vec().into(), &window(1, padding, 1))
        };
        assert!(is_cheaper(&[32, 64, 2, 2], 1));
        // No images, none so large as a patch, and patches that lie in the padding alone.
        assert!(!is_cheaper(&[64, 2, 2], 1));
        assert!(!is_cheaper(&[32, 64, 2, 2], 0));
        assert!(!is_cheaper(&[32, 64, 2, 2], 3));
    }
}
