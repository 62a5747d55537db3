//! One linear layer on the pixels: `fc`, with `norm` before it.

use super::{Model, Norm};
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::nn::{BatchNorm, DeconvLinear, Linear, Mode};
use crate::ops::reshape;

pub(super) fn forward(model: &Model, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
    let batch = g.shape(x).dims()[0];
    let in_features = g.shape(x).len() / batch;
    let mut h = reshape(g, x, [batch, in_features])?;
    if model.norm == Norm::Deconv {
        let layer = DeconvLinear::new(in_features, model.classes, model.deconv.layer());
        return g.scope("fc", |g| layer.forward(g, h, mode));
    }
    if model.norm == Norm::Batch {
        let layer = BatchNorm {
            affine: false,
            ..BatchNorm::new(in_features)
        };
        h = g.scope("norm", |g| layer.forward(g, h, mode))?;
    }
    if model.norm == Norm::Channel {
        let layer = model.deconv.channel(in_features);
        h = g.scope("norm", |g| layer.forward(g, h, mode))?;
    }
    let layer = Linear::new(in_features, model.classes);
    g.scope("fc", |g| layer.forward(g, h))
}
