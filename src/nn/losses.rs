//! Losses of the paper's experiments, per row.

use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::ops::{
    abs, add, affine, exp, log, mul, neg, one_hot, relu, reshape, softmax_cross_entropy, square,
    sub, sum_to,
};

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Softmax cross-entropy.
    CrossEntropy {
        /// PyTorch's `label_smoothing`.
        smoothing: f32,
    },
    /// [`logistic`].
    Logistic,
    /// [`half_squared_error`].
    HalfSquaredError,
}

impl Loss {
    /// The loss of every row, `[N]`; training minimises its mean.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `logits` [N, classes] and `labels` `[N]` do not fit.
    pub fn per_row(self, g: &mut Graph, logits: TensorId, labels: TensorId) -> Result<TensorId> {
        match self {
            Self::CrossEntropy { smoothing } => cross_entropy(g, logits, labels, smoothing),
            Self::Logistic => logistic(g, logits, labels),
            Self::HalfSquaredError => half_squared_error(g, logits, labels),
        }
    }
}

/// Softmax cross-entropy, `[N]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the sizes do not fit.
pub fn cross_entropy(
    g: &mut Graph,
    logits: TensorId,
    labels: TensorId,
    smoothing: f32,
) -> Result<TensorId> {
    softmax_cross_entropy(g, logits, labels, smoothing)
}

/// Binary logistic loss against one-hot targets, summed over classes, `[N]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the sizes do not fit.
pub fn logistic(g: &mut Graph, logits: TensorId, labels: TensorId) -> Result<TensorId> {
    let classes = g.shape(logits).dims().get(1).copied().unwrap_or(0);
    let target = one_hot(g, labels, classes)?;
    // max(z, 0) - z t + log(1 + exp(-|z|)), which overflows for no z.
    let positive = relu(g, logits)?;
    let product = mul(g, logits, target)?;
    let size = abs(g, logits)?;
    let size = neg(g, size)?;
    let small = exp(g, size)?;
    let small = affine(g, small, 1.0, 1.0)?;
    let rest = log(g, small)?;
    let loss = sub(g, positive, product)?;
    let loss = add(g, loss, rest)?;
    sum_rows(g, loss)
}

/// Half the squared error against one-hot targets, summed over classes, `[N]` (Eq. 6).
///
/// # Errors
/// [`crate::Error::Shape`] if the sizes do not fit.
pub fn half_squared_error(g: &mut Graph, logits: TensorId, labels: TensorId) -> Result<TensorId> {
    let classes = g.shape(logits).dims().get(1).copied().unwrap_or(0);
    let target = one_hot(g, labels, classes)?;
    let error = sub(g, logits, target)?;
    let squared = square(g, error)?;
    let squared = affine(g, squared, 0.5, 0.0)?;
    sum_rows(g, squared)
}

fn sum_rows(g: &mut Graph, x: TensorId) -> Result<TensorId> {
    let rows = g.shape(x).dims().first().copied().unwrap_or(0);
    let sums = sum_to(g, x, [rows, 1])?;
    reshape(g, sums, [rows])
}
