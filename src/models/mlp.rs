//! The paper's multi-layer perceptron: pixels - 128 - 128 - 128 - classes, sigmoid between.

use super::layers::{Conventions, Layers, flatten};
use super::{Network, Norm};
use crate::graph::Tensor;
use crate::nn::{DeconvLinear, Linear};

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "mlp",
    about: "Three hidden layers of 128 sigmoid units",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let model = layers.model;
    let hidden = layers.scaled(128);
    let mut h = flatten(x);
    let outputs = [hidden, hidden, hidden, model.classes];
    for (i, out_features) in (1..).zip(outputs) {
        let is_last = i == outputs.len();
        let (name, norm) = (format!("fc{i}"), format!("norm{i}"));
        let in_features = h.size(1);
        h = layers.channel_deconv(&norm, h);
        h = if model.norm == Norm::Deconv {
            let layer = DeconvLinear::new(in_features, out_features).options(model.deconv.layer());
            layers.append(&name, &layer, h)
        } else {
            let layer = Linear {
                // Batch norm's own bias makes the layer's one idle.
                bias: is_last || model.norm != Norm::Batch,
                ..Linear::new(in_features, out_features)
            };
            layers.append(&name, &layer, h)
        };
        if !is_last {
            h = layers.batch_norm(&norm, h).sigmoid();
        }
    }
    h
}
