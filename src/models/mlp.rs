//! The paper's multi-layer perceptron: pixels - 128 - 128 - 128 - classes, sigmoid between.

use super::layers::{Conventions, Layers};
use super::{Network, Norm};
use crate::Result;
use crate::graph::TensorId;
use crate::nn::{DeconvLinear, Linear};
use crate::ops::sigmoid;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "mlp",
    about: "Three hidden layers of 128 sigmoid units",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward(layers: &mut Layers<'_>, x: TensorId) -> Result<TensorId> {
    let (model, mode) = (layers.model, layers.mode);
    let hidden = layers.scaled(128);
    let mut h = layers.flatten(x)?;
    let outputs = [hidden, hidden, hidden, model.classes];
    for (i, out_features) in (1..).zip(outputs) {
        let is_last = i == outputs.len();
        let (name, norm) = (format!("fc{i}"), format!("norm{i}"));
        let in_features = layers.channels(h);
        h = layers.channel_deconv(&norm, h)?;
        h = if model.norm == Norm::Deconv {
            let layer = DeconvLinear::new(in_features, out_features, model.deconv.layer());
            layers.g.scope(&name, |g| layer.forward(g, h, mode))?
        } else {
            // Batch norm's own bias makes the layer's one idle.
            let bias = is_last || model.norm != Norm::Batch;
            let layer = Linear {
                bias,
                ..Linear::new(in_features, out_features)
            };
            layers.g.scope(&name, |g| layer.forward(g, h))?
        };
        if is_last {
            break;
        }
        h = layers.batch_norm(&norm, h)?;
        h = sigmoid(layers.g, h)?;
    }
    Ok(h)
}
