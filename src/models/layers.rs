//! Layers as the norm of a model wants them, so that a network says only what it is made of.

use super::{Form, Model, Norm};
use crate::graph::{Graph, Init, TensorId};
use crate::nn::{
    BatchNorm, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions, Dropout, Linear, Mode,
};
use crate::ops::{Conv2dGeometry, Pool2d, avg_pool2d, global_avg_pool, max_pool2d, relu, reshape};
use crate::{Error, Result};

/// What torchvision does in one way or another from family to family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conventions {
    /// Convolutions have a bias where batch norm, whose own makes it idle, follows too.
    pub(super) bias_before_batch_norm: bool,
    /// First values in the ImageNet form. In the CIFAR form, and of layers that deconvolve, they
    /// are PyTorch's defaults, as in the authors' code.
    pub(super) imagenet_init: ImagenetInit,
}

/// Biases of convolutions are 0 and their weights normal with variance 2 / fan.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImagenetInit {
    /// Fan.
    pub(super) fan: Fan,
    /// Standard deviation of the weights of linear layers; PyTorch's default if `None`.
    pub(super) linear_std: Option<f32>,
    /// Whether biases of linear layers are 0; PyTorch's default if not.
    pub(super) linear_bias_zero: bool,
}

/// Inputs or outputs of a weight, times its taps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fan {
    In,
    Out,
}

impl Conventions {
    /// Of networks without an ImageNet form.
    pub(super) const PLAIN: Self = Self {
        bias_before_batch_norm: false,
        imagenet_init: ImagenetInit {
            fan: Fan::Out,
            linear_std: None,
            linear_bias_zero: false,
        },
    };
}

/// A square convolution that leaves the size of the image as it is but for its stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub(super) out_channels: usize,
    pub(super) kernel_size: usize,
    pub(super) stride: usize,
}

/// What a convolution is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvInput {
    /// Of the convolution, dotted.
    pub name: String,
    /// [N, C, H, W].
    pub x: TensorId,
    /// k.
    pub kernel_size: usize,
}

/// Appends the layers of `model` to a graph. Names are dotted, from the root.
pub(super) struct Layers<'a> {
    pub(super) g: &'a mut Graph,
    pub(super) model: &'a Model,
    pub(super) form: Form,
    pub(super) mode: Mode,
    /// Height and width of the images, for messages.
    image: [usize; 2],
    /// What every convolution so far was given, in order.
    pub(super) conv_inputs: Vec<ConvInput>,
}

impl<'a> Layers<'a> {
    /// For images `x` [N, C, H, W].
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another rank or a size of 0.
    pub(super) fn new(g: &'a mut Graph, model: &'a Model, x: TensorId, mode: Mode) -> Result<Self> {
        let shape = g.shape(x);
        let &[_, _, h, w] = shape.dims() else {
            let message = format!("images {shape} are not [N, C, H, W]");
            return Err(Error::shape(model.network.name, message));
        };
        if shape.is_empty() {
            let message = format!("images {shape} have no pixels");
            return Err(Error::shape(model.network.name, message));
        }
        Ok(Self {
            form: model.form(h, w),
            g,
            model,
            mode,
            image: [h, w],
            conv_inputs: Vec::new(),
        })
    }

    /// A number of channels times the width of the model: a multiple of 8, at least 8.
    pub(super) fn scaled(&self, channels: usize) -> usize {
        if self.model.width == 1.0 {
            return channels;
        }
        let eighths = (channels as f32 * self.model.width / 8.0).round();
        (eighths as usize).max(1) * 8
    }

    /// The size of `x` in dimension 1.
    pub(super) fn channels(&self, x: TensorId) -> usize {
        self.g.shape(x).dims().get(1).copied().unwrap_or(0)
    }

    /// A convolution, and before or after it what the norm puts there, called `norm`.
    pub(super) fn conv(
        &mut self,
        name: &str,
        norm: &str,
        x: TensorId,
        conv: Conv,
    ) -> Result<TensorId> {
        let x = self.channel_deconv(norm, x)?;
        let y = self.bare_conv(name, x, conv)?;
        self.batch_norm(norm, y)
    }

    /// Batch norm, `ReLU`, convolution, in this order; without batch norm `ReLU` and convolution.
    pub(super) fn norm_relu_conv(
        &mut self,
        norm: &str,
        name: &str,
        x: TensorId,
        conv: Conv,
    ) -> Result<TensorId> {
        let x = self.batch_norm(norm, x)?;
        let x = relu(self.g, x)?;
        let x = self.channel_deconv(norm, x)?;
        self.bare_conv(name, x, conv)
    }

    /// Batch norm, if that is the norm.
    pub(super) fn batch_norm(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        if self.model.norm != Norm::Batch {
            return Ok(x);
        }
        let (layer, mode) = (BatchNorm::new(self.channels(x)), self.mode);
        self.g.scope(name, |g| layer.forward(g, x, mode))
    }

    /// Channel deconvolution, if that is the norm.
    pub(super) fn channel_deconv(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        if self.model.norm != Norm::Channel {
            return Ok(x);
        }
        let layer = self.model.deconv.channel(self.channels(x));
        let mode = self.mode;
        self.g.scope(name, |g| layer.forward(g, x, mode))
    }

    /// A convolution, which deconvolves its input if that is the norm, and nothing else.
    pub(super) fn bare_conv(&mut self, name: &str, x: TensorId, conv: Conv) -> Result<TensorId> {
        let Conv {
            out_channels,
            kernel_size,
            stride,
        } = conv;
        let (in_channels, mode) = (self.channels(x), self.mode);
        let geometry = Conv2dGeometry {
            stride,
            padding: kernel_size / 2,
            ..Conv2dGeometry::default()
        };
        // The first one sees raw pixels.
        let is_first = self.conv_inputs.is_empty();
        self.conv_inputs.push(ConvInput {
            name: name.to_string(),
            x,
            kernel_size,
        });
        let deconv = self.model.deconv;
        if self.model.norm == Norm::Deconv {
            let layer = DeconvConv2d {
                in_channels,
                out_channels,
                kernel_size,
                geometry,
                bias: true,
                options: match is_first {
                    true => deconv.first_conv(),
                    false => deconv.layer(),
                },
            };
            return self.g.scope(name, |g| layer.forward(g, x, mode));
        }
        let conventions = self.model.network.conventions;
        let layer = Conv2d {
            in_channels,
            out_channels,
            kernel_size,
            geometry,
            bias: conventions.bias_before_batch_norm || self.model.norm != Norm::Batch,
        };
        let made = self.g.nodes().len();
        let y = self.g.scope(name, |g| layer.forward(g, x))?;
        let fan = match conventions.imagenet_init.fan {
            Fan::In => in_channels,
            Fan::Out => out_channels,
        };
        let std = (2.0 / (fan * kernel_size * kernel_size) as f32).sqrt();
        self.imagenet_init(made, Some(std), true);
        Ok(y)
    }

    /// A linear layer, which deconvolves its input if that is the norm: 512 features together, in the
    /// ImageNet form a 32nd of all (paper section 4).
    pub(super) fn linear(
        &mut self,
        name: &str,
        norm: &str,
        x: TensorId,
        out_features: usize,
    ) -> Result<TensorId> {
        let (in_features, mode) = (self.channels(x), self.mode);
        let x = self.channel_deconv(norm, x)?;
        if self.model.norm == Norm::Deconv {
            let options = DeconvOptions {
                block: match self.form {
                    Form::Cifar => 512,
                    Form::Imagenet => (in_features / 32).max(1),
                },
                ..self.model.deconv.layer()
            };
            let layer = DeconvLinear::new(in_features, out_features, options);
            return self.g.scope(name, |g| layer.forward(g, x, mode));
        }
        let layer = Linear::new(in_features, out_features);
        let made = self.g.nodes().len();
        let y = self.g.scope(name, |g| layer.forward(g, x))?;
        let init = self.model.network.conventions.imagenet_init;
        self.imagenet_init(made, init.linear_std, init.linear_bias_zero);
        Ok(y)
    }

    /// In the ImageNet form, other first values for the layer made since `made`: weights with
    /// standard deviation `std`, biases 0.
    fn imagenet_init(&mut self, made: usize, std: Option<f32>, bias_zero: bool) {
        if self.form != Form::Imagenet {
            return;
        }
        for index in made..self.g.nodes().len() {
            let id = self.g.id(index);
            let is_bias = self.g.node(id).name.ends_with(".bias");
            let init = match (is_bias, std) {
                (true, _) => bias_zero.then_some(Init::Constant(0.0)),
                (false, std) => std.map(Init::Normal),
            };
            if let Some(init) = init {
                self.g.set_init(id, init);
            }
        }
    }

    /// Dropout with the probability of the model.
    pub(super) fn dropout(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        let (layer, mode) = (
            Dropout {
                p: self.model.dropout,
            },
            self.mode,
        );
        self.g.scope(name, |g| layer.forward(g, x, mode))
    }

    /// Max pooling.
    pub(super) fn max_pool(&mut self, x: TensorId, pool: Pool2d) -> Result<TensorId> {
        self.refuse_small(x, pool)?;
        max_pool2d(self.g, x, pool)
    }

    /// Average pooling.
    pub(super) fn avg_pool(&mut self, x: TensorId, pool: Pool2d) -> Result<TensorId> {
        self.refuse_small(x, pool)?;
        avg_pool2d(self.g, x, pool)
    }

    /// Means over pixels, [N, C].
    pub(super) fn global_avg_pool(&mut self, x: TensorId) -> Result<TensorId> {
        let means = global_avg_pool(self.g, x)?;
        self.flatten(means)
    }

    /// [N, rest].
    pub(super) fn flatten(&mut self, x: TensorId) -> Result<TensorId> {
        let batch = self.g.shape(x).dims()[0];
        let rest = self.g.shape(x).len() / batch;
        reshape(self.g, x, [batch, rest])
    }

    /// An error that says what to do about images that this network cannot be given.
    pub(super) fn refusal(&self, why: &str) -> Error {
        let [h, w] = self.image;
        let message = format!("the images of {h} x {w} pixels {why}");
        Error::shape(self.model.network.name, message)
    }

    fn refuse_small(&self, x: TensorId, pool: Pool2d) -> Result<()> {
        let sides = self.g.shape(x).dims().get(2..).unwrap_or_default();
        let needed = pool.kernel_size.saturating_sub(2 * pool.padding);
        if sides.iter().all(|&side| side >= needed) {
            return Ok(());
        }
        Err(self.refusal(
            "are too small for it: nothing is left of them to pool. Choose a smaller network \
             (--model cnn, or linear for any size) or larger images",
        ))
    }
}

/// Windows of 2 x 2 that do not overlap.
pub(super) const HALVE: Pool2d = Pool2d {
    kernel_size: 2,
    stride: 2,
    padding: 0,
};
