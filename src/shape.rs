//! Static shapes, strides, output-size arithmetic and the broadcasting rule.

use std::fmt;

/// Sizes of a tensor, outermost first (NCHW for images). Row-major and dense.
/// The empty shape is a scalar of one element.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape with these sizes.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; `usize::MAX` if there are more.
    pub fn len(&self) -> usize {
        let grow = |product: usize, &size| product.saturating_mul(size);
        match self.0.contains(&0) {
            true => 0,
            false => self.0.iter().fold(1, grow),
        }
    }

    /// True if any size is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the elements (f32).
    pub fn size_bytes(&self) -> u64 {
        (self.len() as u64).saturating_mul(4)
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1usize; self.rank()];
        for i in (1..self.rank()).rev() {
            strides[i - 1] = strides[i].saturating_mul(self.0[i]);
        }
        strides
    }

    /// How an index into `domain` maps to an index into `self` where `self` is broadcast to it.
    /// `None` if it cannot be.
    pub(crate) fn broadcast_to(&self, domain: &Self) -> Option<Broadcast> {
        if self == domain {
            return Some(Broadcast::Same);
        }
        if self.len() == 1 {
            return Some(Broadcast::Scalar);
        }
        if self.rank() != domain.rank() {
            return None;
        }
        // Sizes kept must form one contiguous run (sizes of 1 in the domain are neutral).
        let kept: Vec<usize> = (0..self.rank())
            .filter(|&i| domain.0[i] != 1 && self.0[i] == domain.0[i])
            .collect();
        let fits = (0..self.rank()).all(|i| self.0[i] == domain.0[i] || self.0[i] == 1);
        let (&first, &last) = (kept.first()?, kept.last()?);
        let contiguous = (first..=last).all(|i| self.0[i] == domain.0[i]);
        if !fits || !contiguous {
            return None;
        }
        let inner: usize = domain.0[last + 1..].iter().product();
        if self.len() == domain.len() {
            return Some(Broadcast::Same);
        }
        Some(Broadcast::Run {
            inner,
            len: self.len(),
        })
    }

    /// The shape that `self` and `other` broadcast to, each size being equal or 1.
    pub(crate) fn broadcast_with(&self, other: &Self) -> Option<Self> {
        let joined = if self.rank() == other.rank() {
            let sizes = self.0.iter().zip(&other.0);
            sizes
                .map(|(&a, &b)| (a == b || a == 1 || b == 1).then_some(a.max(b)))
                .collect::<Option<Vec<_>>>()
                .map(Self)?
        } else if self.len() == 1 && (other.len() != 1 || other.rank() > self.rank()) {
            other.clone()
        } else if other.len() == 1 {
            self.clone()
        } else {
            return None;
        };
        (self.broadcast_to(&joined).is_some() && other.broadcast_to(&joined).is_some())
            .then_some(joined)
    }
}

/// Index arithmetic of a broadcast operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Broadcast {
    /// The operand has the domain's shape.
    Same,
    /// One element for all.
    Scalar,
    /// Element `(i / inner) % len` belongs to domain index `i`.
    Run {
        /// Product of the domain's sizes inside the run.
        inner: usize,
        /// Elements of the operand.
        len: usize,
    },
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self(dims)
    }
}

/// Positions a window of `kernel` taps (`dilation` apart) takes on `size` pixels padded by
/// `padding` on both sides, `stride` apart (floor mode). `None` if it does not fit once.
pub(crate) fn window_positions(
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
) -> Option<usize> {
    let reach = dilation.checked_mul(kernel.checked_sub(1)?)? + 1;
    let free = (size + 2 * padding).checked_sub(reach)?;
    free.checked_div(stride).map(|n| n + 1)
}

/// Greatest common divisor.
pub(crate) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_needs_one_contiguous_run() {
        let domain = Shape::from([2, 3, 4, 5]);
        let of = |d: [usize; 4]| Shape::from(d).broadcast_to(&domain);
        assert_eq!(of([2, 3, 4, 5]), Some(Broadcast::Same));
        assert_eq!(of([1, 1, 1, 1]), Some(Broadcast::Scalar));
        assert_eq!(of([1, 3, 1, 1]), Some(Broadcast::Run { inner: 20, len: 3 }));
        assert_eq!(of([2, 1, 1, 1]), Some(Broadcast::Run { inner: 60, len: 2 }));
        assert_eq!(of([1, 1, 4, 5]), Some(Broadcast::Run { inner: 1, len: 20 }));
        assert_eq!(of([2, 1, 4, 1]), None);
        assert_eq!(of([1, 2, 1, 1]), None);
        assert_eq!(Shape::from([3]).broadcast_to(&domain), None);
        // A size that is neither kept nor 1, beside one that is kept.
        assert_eq!(of([2, 3, 4, 3]), None);
        assert_eq!(of([2, 2, 4, 5]), None);
        // As long as the other, though it is nothing: a run of nothing would be a divisor.
        assert_eq!(
            Shape::from([0, 1]).broadcast_to(&Shape::from([0, 5])),
            Some(Broadcast::Same)
        );
    }

    /// Of single numbers the one with more dimensions decides, on either side.
    #[test]
    fn two_shapes_broadcast_to_the_larger_of_each_size() {
        type Row = (&'static [usize], &'static [usize], Option<&'static [usize]>);
        let table: [Row; 9] = [
            (&[2, 1], &[1, 3], Some(&[2, 3])),
            (&[2, 1], &[2, 3], Some(&[2, 3])),
            (&[1, 3], &[2, 3], Some(&[2, 3])),
            (&[1], &[2, 3], Some(&[2, 3])),
            (&[1], &[1, 1], Some(&[1, 1])),
            (&[1], &[1], Some(&[1])),
            (&[], &[1], Some(&[1])),
            (&[3], &[2, 3], None),
            (&[6], &[2, 3], None),
        ];
        for (a, b, wanted) in table {
            let wanted = wanted.map(|dims| Shape::from(dims.to_vec()));
            let [a, b] = [a, b].map(|dims| Shape::from(dims.to_vec()));
            assert_eq!(a.broadcast_with(&b), wanted, "{a} {b}");
            assert_eq!(b.broadcast_with(&a), wanted, "{b} {a}");
        }
    }

    #[test]
    fn window_positions_floor_and_refuse() {
        assert_eq!(window_positions(7, 3, 2, 1, 1), Some(4));
        assert_eq!(window_positions(8, 3, 2, 1, 1), Some(4));
        assert_eq!(window_positions(2, 3, 1, 0, 1), None);
        assert_eq!(window_positions(5, 3, 1, 0, 2), Some(1));
        assert_eq!(window_positions(5, 3, 0, 0, 1), None);
    }
}
