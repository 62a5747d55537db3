//! The paper's multi-layer perceptron: pixels - 128 - 128 - 128 - classes, sigmoid between.

use super::{Model, Norm};
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::nn::{BatchNorm, DeconvLinear, Linear, Mode};
use crate::ops::{reshape, sigmoid};

const HIDDEN: usize = 128;

pub(super) fn forward(model: &Model, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
    let batch = g.shape(x).dims()[0];
    let mut in_features = g.shape(x).len() / batch;
    let mut h = reshape(g, x, [batch, in_features])?;
    let outputs = [HIDDEN, HIDDEN, HIDDEN, model.classes];
    for (i, out_features) in (1..).zip(outputs) {
        let is_last = i == outputs.len();
        if model.norm == Norm::Channel {
            let layer = model.deconv.channel(in_features);
            h = g.scope(&format!("norm{i}"), |g| layer.forward(g, h, mode))?;
        }
        let name = format!("fc{i}");
        h = if model.norm == Norm::Deconv {
            let layer = DeconvLinear::new(in_features, out_features, model.deconv.layer());
            g.scope(&name, |g| layer.forward(g, h, mode))?
        } else {
            // Batch norm's own bias makes the layer's one idle.
            let bias = is_last || model.norm != Norm::Batch;
            let layer = Linear {
                bias,
                ..Linear::new(in_features, out_features)
            };
            g.scope(&name, |g| layer.forward(g, h))?
        };
        if is_last {
            break;
        }
        if model.norm == Norm::Batch {
            let layer = BatchNorm::new(out_features);
            h = g.scope(&format!("norm{i}"), |g| layer.forward(g, h, mode))?;
        }
        h = sigmoid(g, h)?;
        in_features = out_features;
    }
    Ok(h)
}
