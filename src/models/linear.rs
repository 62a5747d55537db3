//! One linear layer on the pixels (the paper's regressions): `fc`, with `norm` before it.

use super::Network;
use super::layers::{Conventions, Layers, flatten};
use crate::graph::Tensor;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "linear",
    about: "One linear layer",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let h = layers.norm_of_input("norm", flatten(x));
    layers.bare_linear("fc", h, layers.model.classes, true)
}
