//! What a convolution of a trained network is given, for an image.

use std::path::Path;

use super::decorrelate::known;
use super::picture::Picture;
use crate::data;
use crate::graph::Tensor;
use crate::models::{ConvInput, Model, Norm};
use crate::nn::{DeconvOptions, Mode};
use crate::program::Store;
use crate::train::checkpoint::{self, Tensors};
use crate::train::{NormName, TrainConfig, TrainOptions};
use crate::{Error, Result};

/// Images are scaled down to this before they go into a network, unless told otherwise.
pub const NETWORK_SIDE: usize = 448;

/// A trained network, of which only what comes before one of its convolutions is run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Where it was read from, for messages.
    path: std::path::PathBuf,
    tensors: Tensors,
    model: Model,
    channels: usize,
    mean: &'static [f32],
    std: &'static [f32],
}

impl Trained {
    /// Reads a checkpoint of decorr's, or a state dict of PyTorch's as safetensors; of the latter `options`
    /// may say `model` (VGG-11 if not) and `norm` (batch norm if it has running variances).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] if it is damaged, [`Error::Config`] for options that are none.
    pub fn read(path: &Path, options: TrainOptions) -> Result<Self> {
        Self::decode(path, &checkpoint::read(path)?, options)
    }

    /// As [`Trained::read`], from the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Trained::read`].
    pub fn decode(path: &Path, bytes: &[u8], options: TrainOptions) -> Result<Self> {
        let (tensors, metadata) = checkpoint::decode(path, bytes)?;
        for (name, tensor) in &tensors {
            if tensor.data.iter().any(|v| !v.is_finite()) {
                let message = format!("{name} has a value that is not a finite number");
                return Err(Error::checkpoint(path, message));
            }
        }
        let written = match checkpoint::written_options(path, &metadata)? {
            Some(written) => {
                let other_model = options.model.is_some() && options.model != written.model;
                let other_norm = options.norm.is_some() && options.norm != written.norm;
                if other_model || other_norm {
                    let name = if other_model { "--model" } else { "--norm" };
                    let message = format!("says itself what it is of: leave {name} out");
                    return Err(Error::checkpoint(path, message));
                }
                written
            }
            None => {
                let has_batch_norm = tensors.keys().any(|name| name.ends_with(".running_var"));
                TrainOptions {
                    model: Some("vgg11".into()),
                    norm: Some(match has_batch_norm {
                        true => NormName::Batch,
                        false => NormName::None,
                    }),
                    data: Some("folder".into()),
                    ..TrainOptions::default()
                }
            }
        };
        let config = TrainConfig::resolve(options.over(written));
        let config = config.map_err(|e| Error::checkpoint(path, e.to_string()))?;
        let set = data::find_set(&config.data)?;
        let ([channels, h, w], classes) =
            data::shape(&config.data, None, config.data_options.image_size)?;
        let mut model = config.model(classes);
        // The images that are looked at may have another size than those it was trained on.
        model.form = Some(model.form(h, w));
        Ok(Self {
            path: path.to_path_buf(),
            tensors,
            model,
            channels,
            mean: set.mean,
            std: set.std,
        })
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Channels that its layers decorrelate together; 64, the default of decorr, if they do not.
    pub fn block(&self) -> usize {
        match self.model.norm {
            Norm::Deconv => self.model.deconv.block,
            _ => DeconvOptions::default().block,
        }
    }

    /// `picture` with the channels that the network takes, no side longer than `side`.
    ///
    /// # Errors
    /// [`Error::Config`] for a side of 0.
    pub fn prepare(&self, picture: &Picture, side: usize) -> Result<Picture> {
        Ok(picture.scaled_down(side)?.with_channels(self.channels))
    }

    /// Appends normalisation and the network up to its `n`-th convolution, from 1, to `image` [1, C, H, W]
    /// with values in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer convolutions, [`Error::Shape`] if the image is too small.
    pub(super) fn conv_input<'g>(&self, image: Tensor<'g>, n: usize) -> Result<ConvInput<'g>> {
        let per_channel = |name: &str, values: &[f32]| {
            let shape = [1, values.len(), 1, 1];
            known(image.graph(), name, shape, values.iter().copied())
        };
        let mean = per_channel("normalise.mean", self.mean);
        let std = per_channel("normalise.std", self.std);
        let x = (image - mean) / std;
        let input = self.model.conv_input(x, Mode::Eval, n);
        input.map_err(|e| match e {
            // What to do about it is another thing than in training.
            Error::Shape { op, .. } => {
                let [_, _, h, w] = image.dims();
                let message = format!(
                    "has {w} x {h} pixels, of which nothing is left before convolution {n}: take a larger image, or \
                     an earlier --layer"
                );
                Error::shape(op, message)
            }
            e => e,
        })
    }

    /// Gives the store, whose program has some of its layers, their parameters and statistics.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming what is missing or of another shape.
    pub(super) fn fill(&self, store: &Store) -> Result<()> {
        checkpoint::part_to_store(&self.path, &self.tensors, store, &checkpoint::MODEL)
    }
}
