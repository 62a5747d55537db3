//! Copies under an affine index map in each dimension: y[c] = x[(c * mul + add) / div], zero
//! where that is no element of x. Transposes, slices, padding, zero insertion and flips are such
//! copies, and so are their gradients.
//!
//! Bound: bytes of x and y, once each.

use crate::graph::op::{
    Dispatch, Grid, Kernel, Lowered, Lowering, Params, Slot, signed_word, word,
};
use crate::graph::{Op, Tensor};
use crate::shape::Shape;
use crate::{Error, Result};

/// See the functions of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StridedCopy {
    dims: Vec<Dim>,
    source: Shape,
}

/// The map of one dimension of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    /// Which dimension of the source it runs over.
    source: usize,
    size: usize,
    mul: i64,
    add: i64,
    div: i64,
}

impl Dim {
    fn whole(source: usize, size: usize) -> Self {
        Self {
            source,
            size,
            mul: 1,
            add: 0,
            div: 1,
        }
    }
}

/// Zeros around and between the pixels of the last two dimensions; negative ones cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding2d {
    /// Zeros before the first row and column.
    pub before: [i64; 2],
    /// Rows and columns of the result.
    pub size: [usize; 2],
    /// Distance between neighbouring pixels in the result: 1 inserts nothing.
    pub spacing: [usize; 2],
}

impl Tensor<'_> {
    /// This with its dimensions in the order `order` (PyTorch's `permute`), copied. Fails if `order` is not a permutation of at
    /// most 4 dimensions.
    #[must_use]
    #[track_caller]
    pub fn permute(self, order: &[usize]) -> Self {
        let source = self.shape();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted != (0..source.rank()).collect::<Vec<_>>() {
            let message = format!("{order:?} is no order of the dimensions of {source}");
            self.graph().fail(Error::shape("permute", message));
            return self;
        }
        let whole = |&d: &usize| Dim::whole(d, source.dims()[d]);
        self.strided_copy(order.iter().map(whole).collect())
    }

    /// Elements `start`, `start + step`, ... of dimension `dim`, `len` of them. Fails if they are not all there.
    #[must_use]
    #[track_caller]
    pub fn slice(self, dim: usize, start: usize, step: usize, len: usize) -> Self {
        let source = self.shape();
        let size = source.dims().get(dim).copied().unwrap_or(0);
        let last = start.saturating_add(len.saturating_sub(1).saturating_mul(step));
        if step == 0 || len == 0 || last >= size {
            let message =
                format!("{len} from {start} in steps of {step} in dimension {dim} of {source}");
            self.graph().fail(Error::shape("slice", message));
            return self;
        }
        let mut dims = wholes(&source);
        dims[dim].size = len;
        dims[dim].mul = to_i64(step);
        dims[dim].add = to_i64(start);
        self.strided_copy(dims)
    }

    /// Zero padding, cropping and zero insertion of the last two dimensions of NCHW. Fails if there are fewer than two
    /// dimensions or more than 4, or for a spacing of 0.
    #[must_use]
    #[track_caller]
    pub fn pad2d(self, padding: Padding2d) -> Self {
        let source = self.shape();
        let rank = source.rank();
        if rank < 2 || padding.spacing.contains(&0) {
            let message = format!("{padding:?} of {source}");
            self.graph().fail(Error::shape("pad2d", message));
            return self;
        }
        let mut dims = wholes(&source);
        for i in 0..2 {
            dims[rank - 2 + i].size = padding.size[i];
            dims[rank - 2 + i].add = -padding.before[i];
            dims[rank - 2 + i].div = to_i64(padding.spacing[i]);
        }
        self.strided_copy(dims)
    }

    /// Dimensions in the order `order`, with the `reversed` last of them reversed. For the kernels of
    /// the gradient of convolutions.
    pub(super) fn permute_and_reverse_last(self, order: &[usize], reversed: usize) -> Self {
        let source = self.shape();
        let whole = |&d: &usize| Dim::whole(d, source.dims()[d]);
        let mut dims: Vec<Dim> = order.iter().map(whole).collect();
        for last in dims.iter_mut().rev().take(reversed) {
            last.mul = -1;
            last.add = to_i64(last.size) - 1;
        }
        self.strided_copy(dims)
    }

    /// This with dimension `dim` reversed. Fails if there is no such dimension, or more than 4.
    #[track_caller]
    pub(super) fn reverse(self, dim: usize) -> Self {
        let mut dims = wholes(&self.shape());
        let Some(reversed) = dims.get_mut(dim) else {
            let message = format!("{self:?} has no dimension {dim}");
            self.graph().fail(Error::shape("reverse", message));
            return self;
        };
        reversed.mul = -1;
        reversed.add = to_i64(reversed.size) - 1;
        self.strided_copy(dims)
    }

    #[track_caller]
    fn strided_copy(self, dims: Vec<Dim>) -> Self {
        let source = self.shape();
        let op = StridedCopy { dims, source };
        if op.dims == wholes(&op.source) {
            return self;
        }
        if let Some((before, source)) = self.made_by::<StridedCopy>() {
            // Undoing a padding (or another copy that loses nothing) gives back its source.
            if before.loses_nothing() && before.adjoint() == op {
                return source;
            }
            // A copy of a copy is one copy.
            if let Some(both) = before.then(&op) {
                return source.strided_copy(both.dims);
            }
        }
        self.apply(op)
    }
}

fn wholes(shape: &Shape) -> Vec<Dim> {
    let sizes = shape.dims().iter().enumerate();
    sizes.map(|(i, &size)| Dim::whole(i, size)).collect()
}

fn to_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl StridedCopy {
    fn shape(&self) -> Shape {
        self.dims.iter().map(|d| d.size).collect::<Vec<_>>().into()
    }

    /// This copy and then `next` as one, if `next` puts no zeros in: these would have to stand
    /// where this one may have elements.
    fn then(&self, next: &Self) -> Option<Self> {
        let reads_only_elements = |outer: &Dim| {
            let size = to_i64(next.source.dims()[outer.source]);
            let last = (to_i64(outer.size) - 1) * outer.mul + outer.add;
            outer.div == 1 && (0..size).contains(&outer.add) && (0..size).contains(&last)
        };
        let both = |outer: &Dim| {
            let inner = self.dims[outer.source];
            Dim {
                source: inner.source,
                size: outer.size,
                mul: outer.mul * inner.mul,
                add: outer.add * inner.mul + inner.add,
                div: inner.div,
            }
        };
        next.dims.iter().all(reads_only_elements).then(|| Self {
            dims: next.dims.iter().map(both).collect(),
            source: self.source.clone(),
        })
    }

    /// The copy that takes the gradient of the output to that of the input.
    fn adjoint(&self) -> Self {
        let mut dims = wholes(&self.source);
        for (i, dim) in self.dims.iter().enumerate() {
            // s = (c * mul + add) / div, so c = (s * div - add) / mul, with mul's sign moved up.
            let sign = dim.mul.signum();
            dims[dim.source] = Dim {
                source: i,
                size: self.source.dims()[dim.source],
                mul: dim.div * sign,
                add: -dim.add * sign,
                div: dim.mul.abs(),
            };
        }
        Self {
            dims,
            source: self.shape(),
        }
    }

    /// True if every element of the source is somewhere in the output.
    fn loses_nothing(&self) -> bool {
        self.dims.iter().all(|d| {
            let last = to_i64(self.source.dims()[d.source]) - 1;
            let inside = |s: i64| {
                let c = s * d.div - d.add;
                c % d.mul == 0 && (0..to_i64(d.size)).contains(&(c / d.mul))
            };
            d.mul.abs() == 1 && inside(0) && inside(last)
        })
    }
}

impl Op for StridedCopy {
    fn name(&self) -> &'static str {
        "strided_copy"
    }

    fn output_shape(&self, _inputs: &[&Shape]) -> Result<Shape, String> {
        if self.dims.len() > 4 {
            return Err(format!("{} has more than 4 dimensions", self.source));
        }
        Ok(self.shape())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![Some(y_grad.strided_copy(self.adjoint().dims))]
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        word(ctx.output.len().max(self.source.len()))?;
        let mut loops = self.loops();
        let is_vectors = in_vectors(&mut loops);
        // Four dimensions, the missing ones in front with one element each.
        let mut four = [Loop::ONE; 4];
        four[4 - loops.len()..].copy_from_slice(&loops);
        let mut constants = Vec::new();
        for (name, i) in ["SIZE_1", "SIZE_2", "SIZE_3"].into_iter().zip(1..) {
            constants.push((name, signed_word(four[i].size)?));
        }
        for (name, of) in ["DIV_0", "DIV_1", "DIV_2", "DIV_3"].into_iter().zip(&four) {
            constants.push((name, signed_word(of.div)?));
        }
        Ok(Dispatch {
            kernel: Kernel {
                name: "strided_copy",
                source: include_str!("../../shaders/strided_copy.wgsl").into(),
                entry: if is_vectors { "vectors" } else { "elements" },
                constants,
            },
            params: Params::new()
                .with("shape", four.map(|l| l.size))?
                .with("mul", four.map(|l| l.mul))?
                .with("add", four.map(|l| l.add))?
                .with("source_shape", four.map(|l| l.source))?
                .with("source_strides", four.map(|l| l.stride))?,
            bindings: vec![Slot::Input(0), Slot::Output],
            grid: Grid::Invocations(ctx.output.len().div_ceil(4)),
        }
        .into())
    }
}

/// A dimension of the output, or several that are copied as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loop {
    size: i64,
    mul: i64,
    add: i64,
    div: i64,
    /// Size of the source's dimension, and distance of its elements.
    source: i64,
    stride: i64,
}

impl Loop {
    const ONE: Self = Self {
        size: 1,
        mul: 1,
        add: 0,
        div: 1,
        source: 1,
        stride: 0,
    };

    /// This and the `inner` loop as one, where the inner one is copied whole.
    fn joined(self, inner: Self) -> Option<Self> {
        let is_plain = |l: Self| l.mul == 1 && l.div == 1;
        let is_whole = is_plain(inner) && inner.add == 0 && inner.size == inner.source;
        let joins = is_plain(self) && is_whole && self.stride == inner.source * inner.stride;
        joins.then(|| Self {
            size: self.size * inner.size,
            add: self.add * inner.source,
            source: self.source * inner.source,
            stride: inner.stride,
            ..inner
        })
    }
}

impl StridedCopy {
    /// As few loops as do the copy.
    fn loops(&self) -> Vec<Loop> {
        let strides = self.source.strides();
        let mut loops: Vec<Loop> = Vec::new();
        for dim in self.dims.iter().rev() {
            let outer = Loop {
                size: to_i64(dim.size),
                mul: dim.mul,
                add: dim.add,
                div: dim.div,
                source: to_i64(self.source.dims()[dim.source]),
                stride: to_i64(strides[dim.source]),
            };
            match loops.last_mut() {
                Some(inner) => match outer.joined(*inner) {
                    Some(joined) => *inner = joined,
                    None => loops.push(outer),
                },
                None => loops.push(outer),
            }
        }
        loops.reverse();
        loops
    }
}

/// Makes `loops` those over vectors of four, if all of these are copied whole.
fn in_vectors(loops: &mut [Loop]) -> bool {
    let Some((last, outer)) = loops.split_last_mut() else {
        return false;
    };
    let is_run = last.mul == 1 && last.div == 1 && last.stride == 1;
    let fours = [last.size, last.add, last.source];
    let mut fours = fours.into_iter().chain(outer.iter().map(|l| l.stride));
    if !is_run || !fours.all(|value| value % 4 == 0) {
        return false;
    }
    last.size /= 4;
    last.add /= 4;
    last.source /= 4;
    for of in outer {
        of.stride /= 4;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::ops::gradients::{Case, case, check, reference};

    fn cases() -> Vec<Case> {
        let padding = Padding2d {
            before: [1, 2],
            size: [13, 12],
            spacing: [2, 2],
        };
        vec![
            case(
                "strided_copy permute",
                &[&[2, 3, 5, 7]],
                |x| x[0].permute(&[2, 0, 3, 1]),
                |x| x[0].permute(&[2, 0, 3, 1]),
            ),
            case(
                "strided_copy slice",
                &[&[3, 11, 5]],
                |x| x[0].slice(1, 1, 3, 3),
                |x| x[0].slice(1, 1, 3, 3),
            ),
            case(
                "strided_copy pad and insert",
                &[&[2, 3, 5, 4]],
                move |x| x[0].pad2d(padding),
                |x| {
                    let shape = [2, 3, 13, 12];
                    reference::Tensor::from_fn(&shape, |i| {
                        let (plane, row, column) = (i / 156, i / 12 % 13, i % 12);
                        let (y, x_) = (row.wrapping_sub(1), column.wrapping_sub(2));
                        let inside = y % 2 == 0 && x_ % 2 == 0 && y / 2 < 5 && x_ / 2 < 4;
                        if inside {
                            x[0].data[(plane * 5 + y / 2) * 4 + x_ / 2]
                        } else {
                            0.0
                        }
                    })
                },
            ),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("strided_copy", &cases());
    }

    #[test]
    fn undoing_a_padding_gives_back_its_source() {
        let g = Graph::new();
        let x = g.input("x", [2, 3, 5, 5]);
        let padding = Padding2d {
            before: [1, 2],
            size: [8, 9],
            spacing: [1, 1],
        };
        let padded = x.pad2d(padding);
        assert_eq!(padded.dims(), [2, 3, 8, 9]);
        let crop = Padding2d {
            before: [-1, -2],
            size: [5, 5],
            spacing: [1, 1],
        };
        assert_eq!(padded.pad2d(crop), x);
        let other = Padding2d {
            before: [0, -2],
            ..crop
        };
        assert_ne!(padded.pad2d(other), x);
    }

    #[test]
    fn dimensions_copied_whole_are_joined_and_vectors_kept() {
        let g = Graph::new();
        let x = g.input("x", [3, 8, 2, 6]);
        let loops_of = |y: Tensor<'_>| {
            let mut loops = y.made_by::<StridedCopy>().unwrap().0.loops();
            let is_vectors = in_vectors(&mut loops);
            let sizes: Vec<i64> = loops.iter().map(|l| l.size).collect();
            (sizes, is_vectors)
        };
        assert_eq!(loops_of(x.slice(1, 3, 1, 4)), (vec![3, 12], true));
        assert_eq!(loops_of(x.slice(2, 1, 1, 1)), (vec![24, 6], false));
        assert_eq!(loops_of(x.permute(&[1, 0, 2, 3])), (vec![8, 3, 3], true));
        assert_eq!(loops_of(x.permute(&[0, 1, 3, 2])), (vec![24, 6, 2], false));
    }

    #[test]
    fn a_copy_of_a_copy_is_one() {
        let g = Graph::new();
        let x = g.input("x", [2, 3, 5, 4]);
        let some = x.slice(2, 1, 2, 2);
        let turned = some.permute_and_reverse_last(&[1, 0, 2, 3], 2);
        assert_eq!(turned.inputs(), [x]);
        assert_eq!(turned.dims(), [3, 2, 2, 4]);
        // Zeros around a slice stand where the source has elements.
        let padding = Padding2d {
            before: [1, 0],
            size: [4, 4],
            spacing: [1, 1],
        };
        assert_eq!(some.pad2d(padding).inputs(), [some]);
    }

    #[test]
    fn slices_and_orders_that_do_not_exist_are_refused() {
        let g = Graph::new();
        let x = g.input("x", [2, 3]);
        assert!(g.attempt(|| x.slice(1, 1, 1, 3)).is_err());
        assert!(g.attempt(|| x.slice(2, 0, 1, 1)).is_err());
        assert!(g.attempt(|| x.slice(0, usize::MAX, 2, 3)).is_err());
        assert!(g.attempt(|| x.permute(&[0, 0])).is_err());
        assert!(g.attempt(|| x.permute(&[0])).is_err());
        let text = g.attempt(|| x.reverse(2)).unwrap_err().to_string();
        assert_eq!(
            text,
            "shape mismatch in reverse: x [2, 3] has no dimension 2"
        );
        g.check().unwrap();
    }
}
