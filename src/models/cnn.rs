//! A small convolutional network: 3x3 convolutions of 32, 64 and 128 channels, `ReLU` and 2x2 max
//! pooling after each, one linear layer.

use super::{Model, Norm};
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::nn::{BatchNorm, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions, Linear, Mode};
use crate::ops::{Conv2dGeometry, Pool2d, max_pool2d, relu, reshape};

const CHANNELS: [usize; 3] = [32, 64, 128];

pub(super) fn forward(model: &Model, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
    let geometry = Conv2dGeometry {
        padding: 1,
        ..Conv2dGeometry::default()
    };
    let pool = Pool2d {
        kernel_size: 2,
        stride: 2,
        padding: 0,
    };
    let mut in_channels = g.shape(x).dims()[1];
    let mut h = x;
    for (i, out_channels) in (1..).zip(CHANNELS) {
        if model.norm == Norm::Channel {
            let layer = model.deconv.channel(in_channels);
            h = g.scope(&format!("norm{i}"), |g| layer.forward(g, h, mode))?;
        }
        let name = format!("conv{i}");
        h = if model.norm == Norm::Deconv {
            let layer = DeconvConv2d {
                in_channels,
                out_channels,
                kernel_size: 3,
                geometry,
                bias: true,
                options: match i {
                    1 => model.deconv.first_conv(),
                    _ => model.deconv.layer(),
                },
            };
            g.scope(&name, |g| layer.forward(g, h, mode))?
        } else {
            let layer = Conv2d {
                in_channels,
                out_channels,
                kernel_size: 3,
                geometry,
                bias: model.norm != Norm::Batch,
            };
            g.scope(&name, |g| layer.forward(g, h))?
        };
        if model.norm == Norm::Batch {
            let layer = BatchNorm::new(out_channels);
            h = g.scope(&format!("norm{i}"), |g| layer.forward(g, h, mode))?;
        }
        h = relu(g, h)?;
        h = max_pool2d(g, h, pool)?;
        in_channels = out_channels;
    }
    let batch = g.shape(h).dims()[0];
    let in_features = g.shape(h).len() / batch;
    h = reshape(g, h, [batch, in_features])?;
    if model.norm == Norm::Channel {
        let layer = model.deconv.channel(in_features);
        h = g.scope("norm4", |g| layer.forward(g, h, mode))?;
    }
    if model.norm == Norm::Deconv {
        // `block` is of the convolutions; the paper's 512 stays for the linear layer.
        let options = DeconvOptions {
            block: 512,
            ..model.deconv.layer()
        };
        let layer = DeconvLinear::new(in_features, model.classes, options);
        return g.scope("fc", |g| layer.forward(g, h, mode));
    }
    let layer = Linear::new(in_features, model.classes);
    g.scope("fc", |g| layer.forward(g, h))
}
