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
    /// Options of deconvolution.
    pub deconv: DeconvSettings,
    /// Number of classes.
    pub classes: usize,
}

/// Options of deconvolution for a whole network. See [`DeconvOptions`] for each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeconvSettings {
    /// Channels or features decorrelated together. Not of the linear layer of a convolutional
    /// network, which keeps the paper's 512.
    pub block: usize,
    /// Added to the diagonal of covariances.
    pub eps: f32,
    /// Denman–Beavers iterations of all layers but a first convolution.
    pub n_iter: usize,
    /// Denman–Beavers iterations of a first convolution, which sees raw pixels.
    pub first_n_iter: usize,
    /// Weight of the new value in running statistics.
    pub momentum: f32,
    /// Statistics of convolutions are of every n-th patch in both directions.
    pub sampling_stride: usize,
}

impl DeconvSettings {
    /// The defaults of the paper's code.
    pub fn new(architecture: Architecture, norm: Norm) -> Self {
        let layer = DeconvOptions::default();
        let (block, eps) = match (norm, architecture) {
            (Norm::Channel, _) => (32, 1e-2),
            (_, Architecture::Cnn) => (layer.block, layer.eps),
            (_, Architecture::Linear | Architecture::Mlp) => (512, layer.eps),
        };
        Self {
            block,
            eps,
            n_iter: layer.n_iter,
            first_n_iter: 15,
            momentum: layer.momentum,
            sampling_stride: layer.sampling_stride,
        }
    }

    /// For a layer on anything but raw pixels.
    fn layer(&self) -> DeconvOptions {
        DeconvOptions {
            block: self.block,
            eps: self.eps,
            n_iter: self.n_iter,
            momentum: self.momentum,
            sampling_stride: self.sampling_stride,
            ..DeconvOptions::default()
        }
    }

    /// For a first convolution, which may be frozen.
    fn first_conv(&self) -> DeconvOptions {
        DeconvOptions {
            n_iter: self.first_n_iter,
            freeze: true,
            ..self.layer()
        }
    }

    /// Channel deconvolution of `channels` channels.
    fn channel(&self, channels: usize) -> ChannelDeconv {
        ChannelDeconv {
            channels,
            options: self.layer(),
            centered: true,
        }
    }
}

impl Model {
    /// True if [`Mode::TrainFrozen`] differs from [`Mode::Train`].
    pub fn has_freeze(&self) -> bool {
        self.norm == Norm::Deconv && self.architecture == Architecture::Cnn
    }

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
