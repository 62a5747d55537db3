//! One linear layer on the pixels (the paper's regressions): `fc`, with `norm` before it.

use super::layers::{Conventions, Layers};
use super::{Network, Norm};
use crate::Result;
use crate::graph::TensorId;
use crate::nn::{BatchNorm, DeconvLinear, Linear};

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "linear",
    about: "One linear layer",
    forms: &[],
    convolutional: false,
    conventions: Conventions::PLAIN,
    forward,
}];

fn forward(layers: &mut Layers<'_>, x: TensorId) -> Result<TensorId> {
    let (model, mode) = (layers.model, layers.mode);
    let mut h = layers.flatten(x)?;
    let in_features = layers.channels(h);
    if model.norm == Norm::Deconv {
        let layer = DeconvLinear::new(in_features, model.classes, model.deconv.layer());
        return layers.g.scope("fc", |g| layer.forward(g, h, mode));
    }
    if model.norm == Norm::Batch {
        let layer = BatchNorm {
            affine: false,
            ..BatchNorm::new(in_features)
        };
        h = layers.g.scope("norm", |g| layer.forward(g, h, mode))?;
    }
    h = layers.channel_deconv("norm", h)?;
    let layer = Linear::new(in_features, model.classes);
    layers.g.scope("fc", |g| layer.forward(g, h))
}
