//! Arguments that several commands share, and what comes along.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use decorr::Result;
use decorr::figures::{Picture, WhitenOptions};
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::train::{Norm, TrainOptions, Trained};

/// Name of the picture that is looked at if no other is given.
pub(crate) const BUNDLED: &str = "astronaut.png";
const ASTRONAUT: &[u8] = include_bytes!("../../assets/astronaut.png");
const VGG: &[u8] = include_bytes!("../../assets/vgg11-cifar10.safetensors");

/// Which adapter.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdapterArgs {
    /// Adapter by number or part of its name, see `decorr devices`
    #[arg(
        long,
        value_name = "NAME|INDEX",
        env = "DECORR_ADAPTER",
        global = true,
        help_heading = "Which GPU"
    )]
    adapter: Option<String>,
    /// Only this backend: vulkan, metal, dx12 or gl
    #[arg(
        long,
        env = "DECORR_BACKEND",
        global = true,
        help_heading = "Which GPU"
    )]
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

/// How D is computed.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatisticsArgs {
    /// Added to the diagonal of the covariance
    #[arg(long, allow_negative_numbers = true, default_value_t = 1e-5)]
    eps: f32,
    /// Denman-Beavers iterations
    #[arg(long, allow_negative_numbers = true, default_value_t = 15)]
    n_iter: usize,
    /// Compute the covariance of every n-th patch in both directions, which is faster
    #[arg(long, allow_negative_numbers = true, default_value_t = 1)]
    sampling_stride: usize,
}

impl StatisticsArgs {
    pub(crate) fn options(&self) -> WhitenOptions {
        WhitenOptions {
            eps: self.eps,
            n_iter: self.n_iter,
            sampling_stride: self.sampling_stride,
        }
    }
}

/// A trained network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Folder of a run of `decorr train`, a checkpoint of one, or a state dict of torchvision as safetensors [default: the
    /// bundled VGG-11, a quarter as wide as the paper's and trained on CIFAR-10 with deconvolution]
    #[arg(long, value_name = "RUN|FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Network of a file that does not say it [default: the VGG, ResNet or DenseNet whose tensors it has]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Its norm [default: by its running statistics]
    #[arg(long)]
    pub(crate) norm: Option<Norm>,
}

impl NetworkArgs {
    fn options(&self) -> TrainOptions {
        TrainOptions {
            model: self.model.clone(),
            norm: self.norm,
            ..TrainOptions::default()
        }
    }

    pub(crate) fn open(&self) -> Result<Trained> {
        let options = self.options();
        match &self.checkpoint {
            Some(path) => Trained::read(path, options),
            None => {
                let path = Path::new("assets/vgg11-cifar10.safetensors");
                Trained::decode(path, VGG, options)
            }
        }
    }
}

/// The picture at `path`, or the bundled one, no side longer than `max_side`. One that `gpu` has to hold as it is, is refused
/// before it is decoded if it cannot.
pub(crate) fn picture(
    path: Option<&Path>,
    max_side: Option<usize>,
    gpu: Option<&Gpu>,
) -> Result<Picture> {
    match (path, max_side, gpu) {
        (Some(path), Some(side), _) => Picture::read_scaled(path, side),
        (Some(path), None, Some(gpu)) => Picture::read_for(gpu, path),
        (Some(path), None, None) => Picture::read(path),
        (None, side, _) => {
            let picture = Picture::decode(Path::new(BUNDLED), ASTRONAUT)?;
            side.map_or(Ok(picture.clone()), |side| picture.scaled_down(side))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_network_reaches_its_file() {
        let network = NetworkArgs {
            checkpoint: None,
            model: Some("cnn".into()),
            norm: Some(Norm::Batch),
        };
        let options = network.options();
        assert_eq!(
            (options.model.as_deref(), options.norm),
            (Some("cnn"), Some(Norm::Batch))
        );
    }

    #[test]
    fn what_is_said_of_an_adapter_reaches_its_choice() {
        let args = AdapterArgs {
            adapter: Some("a".into()),
            backend: Some("vulkan".into()),
        };
        let choice = args.choice();
        assert_eq!(
            (choice.adapter.as_deref(), choice.backend.as_deref()),
            (Some("a"), Some("vulkan"))
        );
    }

    #[test]
    fn what_is_said_of_d_reaches_the_figures() {
        let args = StatisticsArgs {
            eps: 0.5,
            n_iter: 7,
            sampling_stride: 2,
        };
        let options = args.options();
        assert_eq!(
            (options.eps, options.n_iter, options.sampling_stride),
            (0.5, 7, 2)
        );
    }

    /// The bundled picture is 512 x 512, and is scaled as any other.
    #[test]
    fn pictures_are_scaled_to_the_side_that_is_said() {
        let photograph = Path::new("tests/photographs/rocket.jpg");
        for path in [None, Some(photograph)] {
            let whole = picture(path, None, None).unwrap();
            let small = picture(path, Some(32), None).unwrap();
            let longer = whole.width.max(whole.height);
            assert!(longer > 32 && small.width.max(small.height) == 32);
            assert_eq!(small.height, (whole.height * 32 + longer / 2) / longer);
        }
    }
}
