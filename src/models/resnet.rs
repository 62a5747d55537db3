//! `ResNet` (He et al., 2015): stages of blocks that add to what they are given.
//!
//! Names and the place of the stride (in the 3x3 convolution of a bottleneck) are torchvision's. The
//! CIFAR form has a 3x3 stem without stride and without pooling.

use super::layers::{Conv, Conventions, Fan, ImagenetInit, Layers, global_means};
use super::{Form, Forward, Network};
use crate::graph::Tensor;
use crate::ops::Pool2d;

#[rustfmt::skip]
pub(super) const NETWORKS: &[Network] = &[
    resnet("resnet18", "Residual blocks of two convolutions: 2, 2, 2, 2",
        |l, x| forward(l, x, Block::Basic, [2, 2, 2, 2])),
    resnet("resnet34", "Residual blocks of two convolutions: 3, 4, 6, 3",
        |l, x| forward(l, x, Block::Basic, [3, 4, 6, 3])),
    resnet("resnet50", "Residual bottlenecks of three convolutions: 3, 4, 6, 3",
        |l, x| forward(l, x, Block::Bottleneck, [3, 4, 6, 3])),
];

const fn resnet(name: &'static str, about: &'static str, forward: Forward) -> Network {
    Network {
        name,
        about,
        forms: &[Form::Cifar, Form::Imagenet],
        convolutional: true,
        conventions: Conventions {
            bias_before_batch_norm: false,
            imagenet_init: ImagenetInit {
                fan: Fan::Out,
                linear_std: None,
                linear_bias_zero: false,
            },
        },
        forward,
    }
}

#[derive(Clone, Copy)]
enum Block {
    /// 3x3, 3x3.
    Basic,
    /// 1x1, 3x3, 1x1 to four times the channels.
    Bottleneck,
}

fn forward<'g>(
    layers: &mut Layers<'g, '_>,
    x: Tensor<'g>,
    block: Block,
    stages: [usize; 4],
) -> Tensor<'g> {
    let (kernel_size, stride) = match layers.form {
        Form::Cifar => (3, 1),
        Form::Imagenet => (7, 2),
    };
    let stem = Conv {
        out_channels: layers.scaled(64),
        kernel_size,
        stride,
    };
    let mut h = layers.conv("conv1", "bn1", x, stem).relu();
    if layers.form == Form::Imagenet {
        h = layers.max_pool(h, Pool2d::new(3).stride(2).padding(1));
    }
    for (stage, blocks) in stages.into_iter().enumerate() {
        let channels = layers.scaled(64 << stage);
        for i in 0..blocks {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let name = format!("layer{}.{i}", stage + 1);
            h = residual(layers, &name, h, block, channels, stride);
        }
    }
    h = global_means(h);
    layers.linear("fc", "fc.norm", h, layers.model.classes)
}

fn residual<'g>(
    layers: &mut Layers<'g, '_>,
    name: &str,
    x: Tensor<'g>,
    block: Block,
    channels: usize,
    stride: usize,
) -> Tensor<'g> {
    // Channels, kernel size and stride of the convolutions.
    let convs = match block {
        Block::Basic => vec![(channels, 3, stride), (channels, 3, 1)],
        Block::Bottleneck => vec![
            (channels, 1, 1),
            (channels, 3, stride),
            (4 * channels, 1, 1),
        ],
    };
    let mut h = x;
    for (i, &(out_channels, kernel_size, stride)) in convs.iter().enumerate() {
        if i > 0 {
            h = h.relu();
        }
        let (conv, norm) = (
            format!("{name}.conv{}", i + 1),
            format!("{name}.bn{}", i + 1),
        );
        let layer = Conv {
            out_channels,
            kernel_size,
            stride,
        };
        h = layers.conv(&conv, &norm, h, layer);
    }
    let mut shortcut = x;
    if stride != 1 || x.size(1) != h.size(1) {
        let layer = Conv {
            out_channels: h.size(1),
            kernel_size: 1,
            stride,
        };
        let (conv, norm) = (
            format!("{name}.downsample.0"),
            format!("{name}.downsample.1"),
        );
        shortcut = layers.conv(&conv, &norm, x, layer);
    }
    (h + shortcut).relu()
}
