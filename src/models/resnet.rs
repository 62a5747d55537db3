//! `ResNet` (He et al., 2015): stages of blocks that add to what they are given.
//!
//! Names and the place of the stride (in the 3x3 convolution of a bottleneck) are torchvision's. The
//! CIFAR form has a 3x3 stem without stride and without pooling.

use super::layers::{Conv, Conventions, Fan, ImagenetInit, Layers};
use super::{Form, Network};
use crate::Result;
use crate::graph::TensorId;
use crate::ops::{Pool2d, add, relu};

#[rustfmt::skip]
pub(super) const NETWORKS: &[Network] = &[
    resnet("resnet18", "Residual blocks of two convolutions: 2, 2, 2, 2",
        |l, x| forward(l, x, Block::Basic, [2, 2, 2, 2])),
    resnet("resnet34", "Residual blocks of two convolutions: 3, 4, 6, 3",
        |l, x| forward(l, x, Block::Basic, [3, 4, 6, 3])),
    resnet("resnet50", "Residual bottlenecks of three convolutions: 3, 4, 6, 3",
        |l, x| forward(l, x, Block::Bottleneck, [3, 4, 6, 3])),
];

const fn resnet(
    name: &'static str,
    about: &'static str,
    forward: fn(&mut Layers<'_>, TensorId) -> Result<TensorId>,
) -> Network {
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

fn forward(
    layers: &mut Layers<'_>,
    x: TensorId,
    block: Block,
    stages: [usize; 4],
) -> Result<TensorId> {
    let (kernel_size, stride) = match layers.form {
        Form::Cifar => (3, 1),
        Form::Imagenet => (7, 2),
    };
    let stem = Conv {
        out_channels: layers.scaled(64),
        kernel_size,
        stride,
    };
    let mut h = layers.conv("conv1", "bn1", x, stem)?;
    h = relu(layers.g, h)?;
    if layers.form == Form::Imagenet {
        let pool = Pool2d {
            kernel_size: 3,
            stride: 2,
            padding: 1,
        };
        h = layers.max_pool(h, pool)?;
    }
    for (stage, blocks) in stages.into_iter().enumerate() {
        let channels = layers.scaled(64 << stage);
        for i in 0..blocks {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let name = format!("layer{}.{i}", stage + 1);
            h = residual(layers, &name, h, block, channels, stride)?;
        }
    }
    h = layers.global_avg_pool(h)?;
    layers.linear("fc", "fc.norm", h, layers.model.classes)
}

fn residual(
    layers: &mut Layers<'_>,
    name: &str,
    x: TensorId,
    block: Block,
    channels: usize,
    stride: usize,
) -> Result<TensorId> {
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
            h = relu(layers.g, h)?;
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
        h = layers.conv(&conv, &norm, h, layer)?;
    }
    let mut shortcut = x;
    if stride != 1 || layers.channels(x) != layers.channels(h) {
        let layer = Conv {
            out_channels: layers.channels(h),
            kernel_size: 1,
            stride,
        };
        let (conv, norm) = (
            format!("{name}.downsample.0"),
            format!("{name}.downsample.1"),
        );
        shortcut = layers.conv(&conv, &norm, x, layer)?;
    }
    let sum = add(layers.g, h, shortcut)?;
    relu(layers.g, sum)
}
