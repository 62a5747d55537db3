//! Layers, built of ops only. A layer is plain configuration; `forward` appends its nodes, with
//! its parameters and running statistics as states under the current scope, in PyTorch's names.
//!
//! [`DeconvConv2d`] and [`DeconvLinear`] are a convolution and a linear layer on deconvolved inputs (Algorithm 1).
//! [`ChannelDeconv`] gives the deconvolved features themselves, in the shape of its input; in [`Mode::Train`] by the
//! statistics of the batch that it is given, also where nothing is trained.

mod activations;
mod batch_norm;
mod channel_deconv;
mod conv2d;
mod deconv;
mod deconv_conv2d;
mod deconv_linear;
mod deconv_refresh;
mod dropout;
mod linear;
mod losses;
mod pooling;
mod sequential;

pub use activations::{Relu, Sigmoid};
pub use batch_norm::BatchNorm;
pub use channel_deconv::{ChannelDeconv, ChannelDeconvOutput};
pub use conv2d::Conv2d;
pub use deconv::{DeconvOptions, FreezeCounter, Layout, Statistics, resolve_block};
pub use deconv_conv2d::DeconvConv2d;
pub use deconv_linear::DeconvLinear;
pub(crate) use deconv_refresh::is_of_refresh;
pub use dropout::Dropout;
pub use linear::Linear;
pub(crate) use linear::part_of_weight;
pub use losses::{Loss, RowLoss, cross_entropy, half_squared_error, logistic};
pub use pooling::{AvgPool2d, Flatten, GlobalAvgPool, MaxPool2d};
pub use sequential::Sequential;

use crate::graph::{Graph, Init, Tensor};

/// A part of a network, or the whole of it. A network of your own is a [`Sequential`], or a struct that implements this:
/// plain configuration, with layers that it calls in scopes of their own (`examples/custom_layer.rs`):
///
/// ```
/// use decorr::prelude::*;
///
/// /// relu(conv(x) + x)
/// struct Residual(usize);
///
/// impl Layer for Residual {
///     fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
///         let conv = DeconvConv2d::new(self.0, self.0, 3).padding(1);
///         let y = x.graph().scope("conv", || conv.forward(x, mode));
///         (y + x).relu()
///     }
/// }
/// ```
pub trait Layer {
    /// Appends the layer's nodes, for what `mode` says; layers that compute the same in every mode ignore it.
    ///
    /// Fails with [`crate::Error::Shape`] if the sizes do not fit.
    #[track_caller]
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g>;
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        (**self).forward(x, mode)
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics are updated.
    Train,
    /// As `Train`, but layers with `freeze` take their running statistics as constants.
    TrainFrozen,
    /// As `Train`, between two refreshes: layers with `refresh` above 1 take D of the last one, brought to
    /// the mean and the variances of the batch, see [`DeconvOptions::refresh`].
    Between,
    /// `TrainFrozen` and `Between` together.
    BetweenFrozen,
    /// Running statistics.
    Eval,
}

impl Mode {
    /// Whether layers with `freeze` take their running statistics.
    pub fn is_frozen(self) -> bool {
        matches!(self, Self::TrainFrozen | Self::BetweenFrozen)
    }

    /// Whether layers with `refresh` take D of the last refresh.
    pub fn is_between(self) -> bool {
        matches!(self, Self::Between | Self::BetweenFrozen)
    }

    /// A training step, `frozen` and `between` as above.
    pub fn train(frozen: bool, between: bool) -> Self {
        match (frozen, between) {
            (false, false) => Self::Train,
            (true, false) => Self::TrainFrozen,
            (false, true) => Self::Between,
            (true, true) => Self::BetweenFrozen,
        }
    }
}

/// PyTorch's default for weights and biases of linear and convolution layers: uniform within
/// 1 / `sqrt(fan_in)`.
pub(crate) fn default_init(fan_in: usize) -> Init {
    Init::Uniform(1.0 / (fan_in as f32).sqrt())
}

/// A layer's `weight` of this shape, [O, ...], and `bias` `[O]`, if it has one.
#[track_caller]
fn weight_and_bias<'g>(
    g: &'g Graph,
    shape: &[usize],
    has_bias: bool,
) -> (Tensor<'g>, Option<Tensor<'g>>) {
    let init = default_init(shape[1..].iter().product());
    let weight = g.parameter("weight", shape, init.clone());
    let bias = match has_bias {
        true => Some(g.parameter("bias", &shape[..1], init)),
        false => None,
    };
    (weight, bias)
}
