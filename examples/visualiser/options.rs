//! Arguments that several commands share, and what comes along.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use decorr::Result;
use decorr::figures::{Picture, Trained};
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::train::{NormName, TrainOptions};

const ASTRONAUT: &[u8] = include_bytes!("../../assets/astronaut.png");
const VGG: &[u8] = include_bytes!("../../assets/vgg11-cifar10.safetensors");

/// Which adapter.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdapterArgs {
    /// Adapter by number or part of its name, see `decorr devices`
    #[arg(long, value_name = "NAME|INDEX", env = "DECORR_ADAPTER")]
    adapter: Option<String>,
    /// Only this backend: vulkan, metal, dx12 or gl
    #[arg(long, env = "DECORR_BACKEND")]
    backend: Option<String>,
}

impl AdapterArgs {
    pub(crate) fn choice(&self) -> AdapterChoice {
        AdapterChoice {
            adapter: self.adapter.clone(),
            backend: self.backend.clone(),
        }
    }

    pub(crate) fn open(&self) -> Result<Arc<Gpu>> {
        Gpu::open(&self.choice())
    }
}

/// How to decorrelate.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeconvArgs {
    /// Pixels of a patch's side, odd
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    pub(crate) kernel_size: usize,
    /// Channels decorrelated together; 1 takes each colour alone [default: all of a picture, as many
    /// as the layers of the network that is looked at, or 64]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) block: Option<usize>,
    /// Added to the diagonal of the covariance
    #[arg(long, allow_negative_numbers = true, default_value_t = 1e-5)]
    pub(crate) eps: f32,
    /// Denman-Beavers iterations
    #[arg(long, allow_negative_numbers = true, default_value_t = 15)]
    pub(crate) n_iter: usize,
}

/// A trained network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Checkpoint of `decorr train`, or a state dict of torchvision's as safetensors [default: a VGG-11 of a
    /// quarter's width that comes along, trained on CIFAR-10 with deconvolution]
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Network of a file that does not say it [default: vgg11]
    #[arg(long)]
    model: Option<String>,
    /// Its norm [default: batch if it has running variances, else none]
    #[arg(long)]
    norm: Option<NormName>,
    /// Convolution whose input is looked at, from 1 [default of fig9: 5, as in the paper; fig2 looks at
    /// pixels without it]
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) layer: Option<usize>,
}

impl NetworkArgs {
    pub(crate) fn open(&self) -> Result<Trained> {
        let options = TrainOptions {
            model: self.model.clone(),
            norm: self.norm,
            ..TrainOptions::default()
        };
        match &self.checkpoint {
            Some(path) => Trained::read(path, options),
            None => {
                let path = Path::new("assets/vgg11-cifar10.safetensors");
                Trained::decode(path, VGG, options)
            }
        }
    }
}

/// The picture at `path`, or the one that comes along, no side longer than `max_side`.
pub(crate) fn picture(path: Option<&Path>, max_side: Option<usize>) -> Result<Picture> {
    let picture = match path {
        Some(path) => Picture::read(path)?,
        None => Picture::decode(Path::new("assets/astronaut.png"), ASTRONAUT)?,
    };
    match max_side {
        Some(side) => picture.scaled_down(side),
        None => Ok(picture),
    }
}
