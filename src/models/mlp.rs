//! The paper's multi-layer perceptron: pixels - 128 - 128 - 128 - classes, sigmoid between.

use super::Network;
use super::layers::{Conventions, Layers, flatten};
use crate::graph::Tensor;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "mlp",
    about: "Three hidden layers of 128 sigmoid units",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let hidden = layers.scaled(128);
    let mut h = flatten(x);
    for i in 1..=3 {
        let (name, norm) = (format!("fc{i}"), format!("norm{i}"));
        h = layers.hidden_linear(&name, &norm, h, hidden).sigmoid();
    }
    layers.linear("fc4", "norm4", h, layers.model.classes)
}
