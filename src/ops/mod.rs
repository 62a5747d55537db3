//! The closed set of ops: one file each with its shape rule, gradient and dispatch, beside the
//! shader of the same name.
//!
//! An op made wholly of other ops has no shader: [`batch_norm`], and [`newton_schulz()`], which brings
//! a gradient of its own. Element-wise ops share one generated kernel, see [`pointwise`].

mod avg_pool2d;
mod batch_norm;
mod binary;
mod broadcast;
mod concat;
mod constant;
mod contraction;
mod contraction_tiled;
mod conv2d;
mod covariance;
mod detach;
mod histogram;
mod im2col;
mod im2col_matmul;
mod kth_value;
mod matmul;
mod max_pool2d;
mod newton_schulz;
mod newton_schulz_of_rows;
mod one_hot;
mod paint;
pub mod pointwise;
mod pool2d;
mod random_uniform;
mod reduce_sum;
mod reshape;
mod softmax_cross_entropy;
mod strided_copy;
mod top_k_accuracy;
mod unary;

pub use avg_pool2d::{AvgPool2d, avg_pool2d, global_avg_pool};
pub use batch_norm::{BatchNorm, BatchStatistics, batch_norm, batch_statistics};
pub use binary::{Binary, add, div, maximum, mul, sub};
pub use broadcast::{BroadcastTo, broadcast_to};
pub use concat::{Concat, concat};
pub use constant::{Constant, constant};
pub(crate) use contraction::finish_with_relu;
pub use conv2d::{Conv2d, Conv2dGeometry, Conv2dWeightGrad, conv2d};
pub use covariance::{Covariance, covariance};
pub use detach::{Detach, detach};
pub use histogram::{Histogram, histogram};
pub use im2col::{Col2im, Im2col, Window, col2im, im2col, im2col_centred};
pub use im2col_matmul::{Im2colMatmul, im2col_matmul, is_cheaper_by_regions};
pub use kth_value::{KthValue, kth_value};
pub use matmul::{MatMul, Transpose, matmul, matmul_with};
pub use max_pool2d::{MaxPool2d, max_pool2d};
pub(crate) use newton_schulz::WHOLE_FEATURES;
pub use newton_schulz::{CovGrad, newton_schulz};
pub use newton_schulz_of_rows::{is_cheaper_by_rows, newton_schulz_of_rows};
pub use one_hot::{OneHot, one_hot};
pub use paint::{Colours, Paint, ROW_ALIGNMENT, Tiles, paint};
pub use pool2d::Pool2d;
pub use random_uniform::{RandomUniform, random_uniform};
pub use reduce_sum::{ReduceSum, mean_to, reduce_sum, sum_to};
pub use reshape::{Reshape, reshape};
pub use softmax_cross_entropy::{SoftmaxCrossEntropy, softmax_cross_entropy};
pub use strided_copy::{Padding2d, StridedCopy, pad2d, permute, slice};
pub use top_k_accuracy::{TopKAccuracy, top_k_accuracy};
pub use unary::{
    Unary, abs, affine, exp, greater_than_zero, log, neg, recip, relu, rsqrt, scale, sigmoid, sqrt,
    square,
};

/// Every op: what `Op::name` may say outside of fused chains. The tests run over this list, so
/// that no op is without a reference and a gradient check.
pub const NAMES: &[&str] = &[
    "abs",
    "add",
    "affine",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "broadcast",
    "col2im",
    "col2im_matmul",
    "concat",
    "constant",
    "conv2d",
    "conv2d_weight_grad",
    "covariance",
    "detach",
    "div",
    "exp",
    "greater_than_zero",
    "histogram",
    "im2col",
    "im2col_matmul",
    "kth_value",
    "log",
    "matmul",
    "max_pool2d",
    "max_pool2d_grad",
    "maximum",
    "mul",
    "newton_schulz",
    "one_hot",
    "paint",
    "random_uniform",
    "recip",
    "reduce_sum",
    "relu",
    "reshape",
    "rsqrt",
    "sigmoid",
    "sign",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "sqrt",
    "square",
    "strided_copy",
    "sub",
    "top_k_accuracy",
];
