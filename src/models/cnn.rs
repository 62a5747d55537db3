//! A small convolutional network: 3x3 convolutions of 32, 64 and 128 channels, `ReLU` and 2x2 max
//! pooling after each, one linear layer.

use super::Network;
use super::layers::{Conv, Conventions, HALVE, Layers};
use crate::Result;
use crate::graph::TensorId;
use crate::ops::relu;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "cnn",
    about: "Convolutions of 32, 64, 128 channels and one linear layer",
    forms: &[],
    convolutional: true,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward(layers: &mut Layers<'_>, x: TensorId) -> Result<TensorId> {
    let mut h = x;
    for (i, channels) in (1..).zip([32, 64, 128]) {
        let conv = Conv {
            out_channels: layers.scaled(channels),
            kernel_size: 3,
            stride: 1,
        };
        h = layers.conv(&format!("conv{i}"), &format!("norm{i}"), h, conv)?;
        h = relu(layers.g, h)?;
        h = layers.max_pool(h, HALVE)?;
    }
    h = layers.flatten(h)?;
    layers.linear("fc", "norm4", h, layers.model.classes)
}
