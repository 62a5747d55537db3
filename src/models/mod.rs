//! Networks as configuration to layers. Names of parameters are those that `PyTorch` would give.

mod cnn;
mod linear;
mod mlp;

use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::nn::{ChannelDeconv, DeconvOptions, Mode};

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// One linear layer on the pixels (the paper's regressions).
    Linear,
    /// Three hidden layers of 128 sigmoid units (the paper's MLP).
    Mlp,
    /// 3x3 convolutions of 32, 64 and 128 channels, `ReLU` and 2x2 max pooling after each, one
    /// linear layer.
    Cnn,
}

/// What normalises the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Nothing.
    None,
    /// Batch normalisation after each hidden layer; of the input for [`Architecture::Linear`].
    Batch,
    /// Channel deconvolution before each layer.
    Channel,
    /// Every layer deconvolves its input.
    Deconv,
}

/// A network before it is built for a batch size and a mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Which network.
    pub architecture: Architecture,
    /// What normalises it.
    pub norm: Norm,
    /// Options of deconvolution; `None` fields take the layer's default.
    pub deconv: DeconvSettings,
    /// Number of classes.
    pub classes: usize,
}

/// What a user may set about deconvolution; the rest is the layers' default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeconvSettings {
    /// Channels or features decorrelated together: 64 for convolutions, 512 for linear layers,
    /// 32 for channel deconvolution.
    pub block: Option<usize>,
    /// 1e-5; 1e-2 for channel deconvolution.
    pub eps: Option<f32>,
    /// 5; 15 for the first convolution, which sees raw pixels.
    pub n_iter: Option<usize>,
    /// 0.1.
    pub momentum: Option<f32>,
    /// 3.
    pub sampling_stride: Option<usize>,
}

impl DeconvSettings {
    /// With these defaults for what is not set.
    fn resolve(&self, block: usize, eps: f32, n_iter: usize) -> DeconvOptions {
        let defaults = DeconvOptions::default();
        DeconvOptions {
            block: self.block.unwrap_or(block),
            eps: self.eps.unwrap_or(eps),
            n_iter: self.n_iter.unwrap_or(n_iter),
            momentum: self.momentum.unwrap_or(defaults.momentum),
            sampling_stride: self.sampling_stride.unwrap_or(defaults.sampling_stride),
            ..defaults
        }
    }

    /// For a convolution; the first one sees raw pixels and may be frozen.
    fn conv(&self, is_first: bool) -> DeconvOptions {
        DeconvOptions {
            freeze: is_first,
            ..self.resolve(64, 1e-5, if is_first { 15 } else { 5 })
        }
    }

    /// For a linear layer.
    fn linear(&self) -> DeconvOptions {
        self.resolve(512, 1e-5, 5)
    }

    /// Channel deconvolution of `channels` channels.
    fn channel(&self, channels: usize) -> ChannelDeconv {
        ChannelDeconv {
            channels,
            options: self.resolve(32, 1e-2, 5),
            centered: true,
        }
    }
}

impl Model {
    /// Appends the network: images `x` [N, C, H, W] to logits [N, classes].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the images are too small.
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        match self.architecture {
            Architecture::Linear => linear::forward(self, g, x, mode),
            Architecture::Mlp => mlp::forward(self, g, x, mode),
            Architecture::Cnn => cnn::forward(self, g, x, mode),
        }
    }
}
