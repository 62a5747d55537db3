//! `DenseNet` (Huang et al., 2016): every layer is given the outputs of all layers of its block before it.
//!
//! Names are torchvision's. The CIFAR form has a 3x3 stem without stride, pooling and norm.

use super::layers::{Conv, Conventions, Fan, HALVE, ImagenetInit, Layers, global_means};
use super::{Form, Network};
use crate::graph::Tensor;
use crate::ops::Pool2d;

pub(super) const NETWORKS: &[Network] = &[Network {
    name: "densenet121",
    about: "Dense blocks of 6, 12, 24 and 16 layers that add 32 channels each",
    forms: &[Form::Cifar, Form::Imagenet],
    convolutional: true,
    conventions: Conventions {
        bias_before_batch_norm: false,
        imagenet_init: ImagenetInit {
            fan: Fan::In,
            linear_std: None,
            linear_bias_zero: true,
        },
    },
    forward: |l, x| forward(l, x, [6, 12, 24, 16]),
}];

/// Channels that a layer adds.
const GROWTH: usize = 32;

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>, blocks: [usize; 4]) -> Tensor<'g> {
    let mut h = stem(layers, x);
    for (block, count) in (1..).zip(blocks) {
        for layer in 1..=count {
            let name = format!("features.denseblock{block}.denselayer{layer}");
            h = dense_layer(layers, &name, h);
        }
        if block < blocks.len() {
            let conv = Conv {
                out_channels: h.size(1) / 2,
                kernel_size: 1,
                stride: 1,
            };
            let [norm, name] = ["norm", "conv"].map(|n| format!("features.transition{block}.{n}"));
            h = layers.norm_relu_conv(&norm, &name, h, conv);
            h = layers.avg_pool(h, HALVE);
        }
    }
    h = layers.norm_after("features.norm5", h).relu();
    h = global_means(h);
    layers.linear("classifier", "classifier.norm", h, layers.model.classes)
}

fn stem<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    let (name, norm) = ("features.conv0", "features.norm0");
    let out_channels = layers.scaled(2 * GROWTH);
    match layers.form {
        Form::Cifar => {
            let conv = Conv {
                out_channels,
                kernel_size: 3,
                stride: 1,
            };
            let h = layers.norm_before(norm, x);
            layers.bare_conv(name, h, conv)
        }
        Form::Imagenet => {
            let conv = Conv {
                out_channels,
                kernel_size: 7,
                stride: 2,
            };
            let h = layers.conv(name, norm, x, conv).relu();
            layers.max_pool(h, Pool2d::new(3).stride(2).padding(1))
        }
    }
}

/// `x`, and after its channels those that the layer adds.
fn dense_layer<'g>(layers: &mut Layers<'g, '_>, name: &str, x: Tensor<'g>) -> Tensor<'g> {
    let growth = layers.scaled(GROWTH);
    let mut h = x;
    for (i, (out_channels, kernel_size)) in (1..).zip([(4 * growth, 1), (growth, 3)]) {
        let conv = Conv {
            out_channels,
            kernel_size,
            stride: 1,
        };
        let [norm, conv_name] = ["norm", "conv"].map(|n| format!("{name}.{n}{i}"));
        h = layers.norm_relu_conv(&norm, &conv_name, h, conv);
    }
    x.graph().concat(&[x, h], 1)
}
