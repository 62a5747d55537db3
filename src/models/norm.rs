//! The norms: their names, and what each of them puts where.

use serde::{Deserialize, Serialize};

use super::DeconvSettings;
use crate::nn::{BatchNorm, ChannelDeconv, Layer};

/// What normalises the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Nothing.
    None,
    /// Batch normalisation where the original network has it; of the input for `linear`.
    Batch,
    /// Channel deconvolution before each layer.
    Channel,
    /// Every layer deconvolves its input.
    Deconv,
}

impl Norm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Batch, Self::Channel, Self::Deconv];

    /// What `--norm` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::Channel => "channel",
            Self::Deconv => "deconv",
        }
    }

    /// What it puts where. The networks know nothing else of it.
    pub(super) fn place(self) -> Place {
        match self {
            Self::None => Place::Nowhere,
            Self::Batch => {
                Place::After(|channels, affine| Box::new(BatchNorm::new(channels).affine(affine)))
            }
            Self::Channel => Place::Before(|channels, settings| {
                let layer = ChannelDeconv::new(channels, settings.block);
                Box::new(layer.options(settings.layer()))
            }),
            Self::Deconv => Place::Inside,
        }
    }
}

/// Where a norm stands, as seen from a convolution or a linear layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// There is none.
    Nowhere,
    /// A layer before it, of its input channels or features.
    Before(fn(usize, &DeconvSettings) -> Box<dyn Layer>),
    /// Convolution and linear layer deconvolve what they are given.
    Inside,
    /// A layer after it, of its output channels or features; with a scale and a bias of its own or not.
    After(fn(usize, bool) -> Box<dyn Layer>),
}

impl Place {
    /// Whether it is a layer of its own.
    pub(super) fn is_layer(self) -> bool {
        matches!(self, Self::Before(_) | Self::After(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files() {
        for norm in Norm::ALL {
            let name = serde_json::to_string(&norm).unwrap();
            assert_eq!(name, format!("{:?}", norm.name()));
        }
    }
}
