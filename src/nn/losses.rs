//! Losses per row: those of the paper's experiments, and the trait for others.

use crate::graph::Tensor;

/// A loss of rows, from what a network gives and what was wanted.
pub trait RowLoss {
    /// Appends the loss of every row, `[N]`, of `logits` [N, classes] and `labels` `[N]`, class numbers as floats; training
    /// minimises its mean. A row's loss depends on that row alone: evaluation leaves out rows that fill up the last batch.
    #[track_caller]
    fn per_row<'g>(&self, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g>;
}

impl RowLoss for Loss {
    fn per_row<'g>(&self, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
        Self::per_row(*self, logits, labels)
    }
}

impl RowLoss for &dyn RowLoss {
    fn per_row<'g>(&self, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
        (**self).per_row(logits, labels)
    }
}

/// Which loss of the paper's experiments.
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

impl Default for Loss {
    /// Softmax cross-entropy without smoothing.
    fn default() -> Self {
        Self::CrossEntropy { smoothing: 0.0 }
    }
}

impl Loss {
    /// The loss of every row, `[N]`, of `logits` [N, classes] and `labels` `[N]`; training minimises its mean.
    #[track_caller]
    pub fn per_row<'g>(self, logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
        match self {
            Self::CrossEntropy { smoothing } => cross_entropy(logits, labels, smoothing),
            Self::Logistic => logistic(logits, labels),
            Self::HalfSquaredError => half_squared_error(logits, labels),
        }
    }
}

/// Softmax cross-entropy, `[N]`.
#[track_caller]
pub fn cross_entropy<'g>(logits: Tensor<'g>, labels: Tensor<'g>, smoothing: f32) -> Tensor<'g> {
    logits.softmax_cross_entropy(labels, smoothing)
}

/// Binary logistic loss against one-hot targets, summed over classes, `[N]`.
#[track_caller]
pub fn logistic<'g>(logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let (z, t) = (logits, labels.one_hot(logits.size(1)));
    // max(z, 0) - z t + ln(1 + exp(-|z|)), which overflows for no z.
    (z.relu() - z * t + ((-z.abs()).exp() + 1.0).ln()).sum_rows()
}

/// Half the squared error against one-hot targets, summed over classes, `[N]` (Eq. 6).
#[track_caller]
pub fn half_squared_error<'g>(logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let target = labels.one_hot(logits.size(1));
    (0.5 * (logits - target).square()).sum_rows()
}
