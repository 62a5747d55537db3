//! The ops of this crate: one file each with its shape rule, gradient and dispatch, beside the
//! shader of the same name. Each file adds its operators and methods to [`crate::graph::Tensor`]; where one wants what
//! does not fit, the graph keeps the error (see [`crate::graph`]).
//!
//! Unstable: may change in any release.
//!
//! An op made wholly of other ops has no shader: [`BatchNorm`], and `newton_schulz`, which brings
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
#[cfg(test)]
mod gradients;
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
mod rank_mean;
mod reduce_sum;
mod reshape;
mod softmax_cross_entropy;
mod strided_copy;
mod top_k_accuracy;
mod unary;
mod unpack_pixels;

pub use avg_pool2d::AvgPool2d;
pub use batch_norm::{BatchNorm, BatchStatistics};
pub use binary::Binary;
pub use broadcast::BroadcastTo;
pub use concat::Concat;
pub use constant::Constant;
pub(crate) use contraction::finish_with_relu;
pub use conv2d::{Conv2d, Conv2dGeometry, Conv2dWeightGrad};
pub use covariance::Covariance;
pub use detach::Detach;
pub use histogram::Histogram;
pub use im2col::{Col2im, Im2col, Window};
pub use im2col_matmul::Im2colMatmul;
pub(crate) use im2col_matmul::is_cheaper_by_regions;
pub use kth_value::KthValue;
pub use matmul::{MatMul, Transpose};
pub use max_pool2d::MaxPool2d;
pub use newton_schulz::CovGrad;
pub(crate) use newton_schulz::WHOLE_FEATURES;
pub(crate) use newton_schulz_of_rows::is_cheaper_by_rows;
pub use one_hot::OneHot;
pub use paint::{Colours, Paint, ROW_ALIGNMENT, Tiles};
pub use pool2d::Pool2d;
pub use random_uniform::RandomUniform;
pub use rank_mean::RankMean;
pub use reduce_sum::ReduceSum;
pub use reshape::Reshape;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use strided_copy::{Padding2d, StridedCopy};
pub use unary::Unary;
pub use unpack_pixels::UnpackPixels;
