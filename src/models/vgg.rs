//! VGG (Simonyan and Zisserman, 2014): 3x3 convolutions and 2x2 max pooling, then linear layers.
//!
//! Names are torchvision's, whose numbers in `features` count batch norm, or channel deconvolution in
//! its place. The CIFAR form has one linear layer, `classifier`, on the means of what is left of the
//! image (1 x 1 of 32 x 32).

use super::layers::{Conv, Conventions, Fan, HALVE, ImagenetInit, Layers, flatten, global_means};
use super::{Form, Forward, Network};
use crate::graph::Tensor;
use crate::ops::Pool2d;

/// Max pooling, among numbers of channels.
const M: usize = 0;

#[rustfmt::skip]
pub(super) const NETWORKS: &[Network] = &[
    vgg("vgg11", "8 convolutions of 64 to 512 channels",
        |l, x| forward(l, x, &[64, M, 128, M, 256, 256, M, 512, 512, M, 512, 512, M])),
    vgg("vgg13", "10 convolutions of 64 to 512 channels",
        |l, x| forward(l, x, &[64, 64, M, 128, 128, M, 256, 256, M, 512, 512, M, 512, 512, M])),
    vgg("vgg16", "13 convolutions of 64 to 512 channels",
        |l, x| forward(l, x, &[64, 64, M, 128, 128, M, 256, 256, 256, M, 512, 512, 512, M, 512, 512, 512, M])),
    vgg("vgg19", "16 convolutions of 64 to 512 channels",
        |l, x| forward(l, x, &[64, 64, M, 128, 128, M, 256, 256, 256, 256, M, 512, 512, 512, 512, M, 512, 512, 512, 512, M])),
];

const fn vgg(name: &'static str, about: &'static str, forward: Forward) -> Network {
    Network {
        name,
        about,
        forms: &[Form::Cifar, Form::Imagenet],
        convolutional: true,
        conventions: Conventions {
            bias_before_batch_norm: true,
            imagenet_init: ImagenetInit {
                fan: Fan::Out,
                linear_std: Some(0.01),
                linear_bias_zero: true,
            },
        },
        forward,
    }
}

fn forward<'g>(layers: &mut Layers<'g, '_>, x: Tensor<'g>, table: &[usize]) -> Tensor<'g> {
    // Convolution, norm, ReLU.
    let places = if layers.norm.is_layer() { 3 } else { 2 };
    let (mut h, mut i) = (x, 0);
    for &channels in table {
        if channels == M {
            h = layers.max_pool(h, HALVE);
            i += 1;
            continue;
        }
        let conv = Conv {
            out_channels: layers.scaled(channels),
            kernel_size: 3,
            stride: 1,
        };
        let (name, norm) = (format!("features.{i}"), format!("features.{}", i + 1));
        h = layers.conv(&name, &norm, h, conv).relu();
        i += places;
    }
    let classes = layers.model.classes;
    match layers.form {
        Form::Cifar => {
            h = global_means(h);
            layers.linear("classifier", "classifier.norm", h, classes)
        }
        Form::Imagenet => {
            h = flatten(seven_by_seven(layers, h));
            let hidden = layers.scaled(4096);
            for i in [0, 3] {
                let name = format!("classifier.{i}");
                let dropout = format!("classifier.{}", i + 2);
                h = layers.linear(&name, &format!("{name}.norm"), h, hidden);
                h = layers.dropout(&dropout, h.relu());
            }
            layers.linear("classifier.6", "classifier.6.norm", h, classes)
        }
    }
}

/// What is left of the image as means of 7 x 7 equal parts: itself, of 224 x 224 pixels.
fn seven_by_seven<'g>(layers: &Layers<'g, '_>, x: Tensor<'g>) -> Tensor<'g> {
    match x.dims() {
        [_, _, 7, 7] => x,
        [_, _, h, w] if h == w && h > 0 && h.is_multiple_of(7) => {
            layers.avg_pool(x, Pool2d::new(h / 7))
        }
        _ => {
            let why = "do not fit its ImageNet form, which takes 224 x 224 or 448 x 448. For small \
                       images choose `form` cifar";
            layers.refuse(x, why);
            x
        }
    }
}
