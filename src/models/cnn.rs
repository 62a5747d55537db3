//! A small convolutional network: 3x3 convolutions of 32, 64 and 128 channels, `ReLU` and 2x2 max
//! pooling after each, one linear layer.

use super::Network;
use super::layers::{Conv, Conventions, HALVE, Layers, flatten};
use crate::graph::Tensor;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "cnn",
    about: "Convolutions of 32, 64, 128 channels and one linear layer",
    forms: &[],
    convolutional: true,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let mut h = x;
    for (i, channels) in (1..).zip([32, 64, 128]) {
        let conv = Conv {
            out_channels: layers.scaled(channels),
            kernel_size: 3,
            stride: 1,
        };
        h = layers.conv(&format!("conv{i}"), &format!("norm{i}"), h, conv);
        h = layers.max_pool(h.relu(), HALVE);
    }
    h = flatten(h);
    layers.linear("fc", "norm4", h, layers.model.classes)
}
