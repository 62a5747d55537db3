//! Networks as configuration to layers. Names of parameters are those that PyTorch and torchvision
//! give.
//!
//! A family is a file with a table of [`Network`]s. A new network is a row there; a new family is a file, its `mod` line
//! and its line in `FAMILIES`, whose length counts them.

mod cnn;
mod densenet;
mod layers;
mod linear;
mod mlp;
mod norm;
mod resnet;
mod summary;
mod vgg;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Tensor};
use crate::nn::{DeconvOptions, FreezeCounter, Layer, Mode};
use crate::{Error, Result};
pub use layers::ConvInput;
pub(crate) use layers::Tap;
use layers::{Conventions, Layers};
pub use norm::Norm;
pub use summary::{Summary, summaries};

/// Every network, by family.
const FAMILIES: [&[Network]; 6] = [
    linear::NETWORKS,
    mlp::NETWORKS,
    cnn::NETWORKS,
    vgg::NETWORKS,
    resnet::NETWORKS,
    densenet::NETWORKS,
];

/// A network that can be chosen by its name.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// What `--model` takes.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// The forms it comes in; none for small networks, which take images of any size as they are.
    pub forms: &'static [Form],
    /// Whether its first layer is a convolution: it freezes, and blocks are of channels.
    convolutional: bool,
    conventions: Conventions,
    forward: Forward,
}

/// Appends a network for images: gives its logits.
type Forward = for<'g> fn(&mut Layers<'g, '_>, Tensor<'g>) -> Tensor<'g>;

/// What a network is cut out for: its stem and its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Images of 32 x 32 pixels: no reduction before the first block, one linear layer.
    Cifar,
    /// Images of 224 x 224 pixels, as torchvision has it.
    Imagenet,
}

impl Form {
    /// `cifar` or `imagenet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::Imagenet => "imagenet",
        }
    }
}

/// A network before it is built for images and a mode.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Which network.
    pub network: &'static Network,
    /// Its form; `None` goes by the size of the images, see [`Model::form`].
    pub form: Option<Form>,
    /// Factor of all numbers of channels, which are rounded to multiples of 8, at least 8.
    pub width: f32,
    /// Probability of dropout where the network has it: in the head of VGG's ImageNet form.
    pub dropout: f32,
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
    /// Channels or features decorrelated together. Not of the linear layers of a convolutional
    /// network: those decorrelate 512 features together, in the ImageNet form a 32nd of all.
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
    /// Training steps from one covariance and D to the next, of all layers but a first convolution.
    pub refresh: usize,
    /// Covariance and D are of every step before this one, whatever `refresh` is.
    pub refresh_after: u64,
}

/// Every network, in the order of the list.
pub fn networks() -> impl Iterator<Item = &'static Network> {
    FAMILIES.iter().copied().flatten()
}

/// The network called `name`.
///
/// # Errors
/// [`Error::Config`] with all names.
pub fn network(name: &str) -> Result<&'static Network> {
    networks().find(|n| n.name == name).ok_or_else(|| {
        let names: Vec<&str> = networks().map(|n| n.name).collect();
        let names = names.join(", ");
        Error::Config(format!("there is no model {name:?}; there are {names}"))
    })
}

impl Network {
    /// The images it is usually given, [C, H, W], and their number of classes.
    pub fn usual_images(&self, form: Option<Form>) -> ([usize; 3], usize) {
        match form {
            _ if self.forms.is_empty() => ([1, 28, 28], 10),
            Some(Form::Imagenet) => ([3, 224, 224], 1000),
            Some(Form::Cifar) | None => ([3, 32, 32], 10),
        }
    }
}

impl DeconvSettings {
    /// Default of `first_n_iter`.
    pub const FIRST_N_ITER: usize = 15;

    /// The defaults of the paper's code.
    pub fn new(network: &Network, norm: Norm) -> Self {
        let layer = DeconvOptions::default();
        let (block, eps) = match norm {
            Norm::Channel => (32, 1e-2),
            _ if network.convolutional => (layer.block, layer.eps),
            _ => (512, layer.eps),
        };
        Self {
            block,
            eps,
            n_iter: layer.n_iter,
            first_n_iter: Self::FIRST_N_ITER,
            momentum: layer.momentum,
            sampling_stride: layer.sampling_stride,
            refresh: layer.refresh,
            refresh_after: 0,
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
            refresh: self.refresh,
            ..DeconvOptions::default()
        }
    }

    /// For a first convolution, which may be frozen.
    fn first_conv(&self) -> DeconvOptions {
        self.layer().n_iter(self.first_n_iter).freeze(true)
    }
}

impl Layer for Model {
    /// As [`Model::forward`].
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        Self::forward(self, x, mode)
    }
}

impl Model {
    /// The network called `name` with the defaults.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub fn new(name: &str, norm: Norm, classes: usize) -> Result<Self> {
        let network = network(name)?;
        Ok(Self {
            network,
            form: None,
            width: 1.0,
            dropout: 0.5,
            norm,
            deconv: DeconvSettings::new(network, norm),
            classes,
        })
    }

    /// How training step `step` (from 0) is to be run: whether the first convolution is frozen (see
    /// [`FreezeCounter`]) and whether the step lies between two refreshes.
    pub fn mode(&self, step: u64, freeze: FreezeCounter) -> Mode {
        if self.norm != Norm::Deconv {
            return Mode::Train;
        }
        let frozen = self.network.convolutional && freeze.mode(step) == Mode::TrainFrozen;
        let refresh = self.deconv.refresh.max(1) as u64;
        let between = step >= self.deconv.refresh_after && !step.is_multiple_of(refresh);
        Mode::train(frozen, between)
    }

    /// The modes that a run of `steps` training steps may come to.
    pub fn modes(&self, steps: u64, freeze: FreezeCounter) -> Vec<Mode> {
        let mut modes = vec![Mode::Train];
        if self.norm != Norm::Deconv {
            return modes;
        }
        let cycle = self.deconv.refresh.max(1) as u64;
        // Of two steps that follow each other, one is between.
        let after = self.deconv.refresh_after.max(1);
        let last_chance = match after.is_multiple_of(cycle) {
            true => after.saturating_add(1),
            false => after,
        };
        let has_between = cycle > 1 && last_chance < steps;
        if has_between {
            modes.push(Mode::Between);
        }
        let first_frozen = freeze.first_frozen().filter(|_| self.network.convolutional);
        if let Some(first) = first_frozen.filter(|&first| first < steps) {
            if has_between {
                modes.push(Mode::BetweenFrozen);
            }
            let refreshed = first.div_ceil(cycle).saturating_mul(cycle);
            if first < self.deconv.refresh_after || refreshed < steps {
                modes.push(Mode::TrainFrozen);
            }
        }
        modes
    }

    /// The form that images of `height` x `width` pixels are given: the one that was chosen, else
    /// ImageNet's for images of more than 64 pixels in either direction.
    pub fn form(&self, height: usize, width: usize) -> Form {
        let is_large = height.max(width) > 64 && !self.network.forms.is_empty();
        self.form.unwrap_or(match is_large {
            true => Form::Imagenet,
            false => Form::Cifar,
        })
    }

    /// Appends the network: images `x` [N, C, H, W] to logits [N, classes].
    ///
    /// Fails with [`Error::Shape`] if the images are too small.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        self.build(x, mode).0
    }

    /// The logits, and every convolution and linear layer in order, up to the first error.
    #[track_caller]
    pub(crate) fn build<'g>(&self, x: Tensor<'g>, mode: Mode) -> (Tensor<'g>, Vec<Tap<'g>>) {
        let mut layers = Layers::new(self, x, mode);
        if x.graph().has_failed() {
            return (x, Vec::new());
        }
        let logits = (self.network.forward)(&mut layers, x);
        (logits, layers.taps)
    }

    /// Appends the network up to its `n`-th convolution, from 1, and says what that is given. Images may be of
    /// sizes that its head does not take.
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer convolutions, [`Error::Shape`] if the images are too small.
    pub fn conv_input<'g>(&self, x: Tensor<'g>, mode: Mode, n: usize) -> Result<ConvInput<'g>> {
        let mut inputs = Vec::new();
        // An error of what comes after the convolution does not matter.
        let whole = x.graph().attempt(|| inputs = self.conv_inputs(x, mode));
        if let Some(input) = inputs.get(n.wrapping_sub(1)) {
            return Ok(input.clone());
        }
        let name = self.network.name;
        let count = match whole {
            Ok(()) => inputs.len(),
            // Images that are too small say nothing of how many there are.
            Err(too_small) => match self.conv_count() {
                count if (1..=count).contains(&n) => return Err(too_small),
                count => count,
            },
        };
        Err(Error::Config(format!(
            "{name} has {count} convolutions; there is no convolution {n}"
        )))
    }

    /// How many convolutions it has.
    fn conv_count(&self) -> usize {
        let g = Graph::new();
        let ([c, h, w], _) = self.network.usual_images(self.form);
        let x = g.input("images", [1, c, h, w]);
        self.conv_inputs(x, Mode::Eval).len()
    }

    /// What every convolution is given, up to the first error.
    fn conv_inputs<'g>(&self, x: Tensor<'g>, mode: Mode) -> Vec<ConvInput<'g>> {
        let (_, taps) = self.build(x, mode);
        taps.iter().filter_map(Tap::conv_input).collect()
    }
}
