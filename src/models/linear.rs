//! One linear layer on the pixels (the paper's regressions): `fc`, with `norm` before it.

use super::layers::{Conventions, Layers, flatten};
use super::{Network, Norm};
use crate::graph::Tensor;
use crate::nn::{BatchNorm, DeconvLinear, Linear};

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "linear",
    about: "One linear layer",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let model = layers.model;
    let mut h = flatten(x);
    let in_features = h.size(1);
    if model.norm == Norm::Deconv {
        let layer = DeconvLinear::new(in_features, model.classes).options(model.deconv.layer());
        return layers.append("fc", &layer, h);
    }
    if model.norm == Norm::Batch {
        let layer = BatchNorm::new(in_features).affine(false);
        h = layers.append("norm", &layer, h);
    }
    h = layers.channel_deconv("norm", h);
    layers.append("fc", &Linear::new(in_features, model.classes), h)
}
