//! Layers as the norm of a model wants them, so that a network says only what it is made of.

use super::norm::Place;
use super::{Form, Model};
use crate::Error;
use crate::graph::{Init, Tensor};
use crate::nn::{
    Conv2d, DeconvConv2d, DeconvLinear, Dropout, Flatten, Layer, Linear, Mode, Statistics,
};
use crate::ops::{Pool2d, Window};

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
pub struct ConvInput<'g> {
    /// Of the convolution, dotted.
    pub name: String,
    /// [N, C, H, W].
    pub x: Tensor<'g>,
    /// k.
    pub kernel_size: usize,
}

/// A convolution or linear layer of a graph, with what goes in and what comes out.
#[derive(Clone, Debug)]
pub(crate) struct Tap<'g> {
    /// Dotted, from the root.
    pub(crate) name: String,
    /// What the network gives it, before a norm that is a layer of its own: [N, C, H, W] or [N, F].
    pub(crate) given: Tensor<'g>,
    /// What that norm makes of it; else the same.
    pub(crate) x: Tensor<'g>,
    /// Its result, [N, O, `out_h`, `out_w`] or [N, O].
    pub(crate) y: Tensor<'g>,
    /// Of a convolution: its patches of `x`.
    pub(crate) window: Option<Window>,
    /// Of a layer that deconvolves `x`: by these, block by block.
    pub(crate) statistics: Option<Statistics<'g>>,
}

impl<'g> Tap<'g> {
    /// If it is a convolution.
    pub(super) fn conv_input(&self) -> Option<ConvInput<'g>> {
        Some(ConvInput {
            name: self.name.clone(),
            x: self.x,
            kernel_size: self.window?.kernel_size[0],
        })
    }
}

/// Appends the layers of `model` to a graph. Names are dotted, from the root.
pub(super) struct Layers<'g, 'm> {
    pub(super) model: &'m Model,
    pub(super) form: Form,
    pub(super) norm: Place,
    mode: Mode,
    /// Height and width of the images, for messages.
    image: [usize; 2],
    /// Every convolution and linear layer so far, in order; up to the first error of the graph.
    pub(super) taps: Vec<Tap<'g>>,
    /// The last norm that stands before a layer: what it was given and what it made of it.
    normed: Option<[Tensor<'g>; 2]>,
}

impl<'g, 'm> Layers<'g, 'm> {
    /// For images `x` [N, C, H, W].
    ///
    /// Fails with [`Error::Shape`] if `x` has another rank or a size of 0.
    #[track_caller]
    pub(super) fn new(model: &'m Model, x: Tensor<'g>, mode: Mode) -> Self {
        let shape = x.shape();
        let what = match shape.rank() {
            4 if !shape.is_empty() => None,
            4 => Some("have no pixels"),
            _ => Some("are not [N, C, H, W]"),
        };
        if let Some(what) = what {
            let message = format!("images {shape} {what}");
            x.graph().fail(Error::shape(model.network.name, message));
        }
        let [_, _, h, w] = x.dims();
        Self {
            form: model.form(h, w),
            norm: model.norm.place(),
            model,
            mode,
            image: [h, w],
            taps: Vec::new(),
            normed: None,
        }
    }

    /// A layer with its names under `name`.
    pub(super) fn append(&self, name: &str, layer: &impl Layer, x: Tensor<'g>) -> Tensor<'g> {
        x.graph().scope(name, || layer.forward(x, self.mode))
    }

    /// A number of channels times the width of the model: a multiple of 8, at least 8.
    pub(super) fn scaled(&self, channels: usize) -> usize {
        if self.model.width == 1.0 {
            return channels;
        }
        let eighths = (channels as f32 * self.model.width / 8.0).round();
        (eighths as usize).max(1) * 8
    }

    /// A convolution, and before or after it what the norm puts there, called `norm`.
    pub(super) fn conv(&mut self, name: &str, norm: &str, x: Tensor<'g>, conv: Conv) -> Tensor<'g> {
        let x = self.norm_before(norm, x);
        let y = self.bare_conv(name, x, conv);
        self.norm_after(norm, y)
    }

    /// A norm that elsewhere follows convolutions, `ReLU`, convolution, in this order; with other norms `ReLU` and convolution.
    pub(super) fn norm_relu_conv(
        &mut self,
        norm: &str,
        name: &str,
        x: Tensor<'g>,
        conv: Conv,
    ) -> Tensor<'g> {
        let x = self.norm_after(norm, x).relu();
        let x = self.norm_before(norm, x);
        self.bare_conv(name, x, conv)
    }

    /// What the norm puts after a convolution or hidden layer.
    pub(super) fn norm_after(&self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        match self.norm {
            Place::After(layer) => self.append(name, &layer(x.size(1), true), x),
            _ => x,
        }
    }

    /// What the norm puts before a convolution or linear layer.
    pub(super) fn norm_before(&mut self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        match self.norm {
            Place::Before(layer) => {
                let layer = layer(x.size(1), &self.model.deconv);
                self.append_before(name, &layer, x)
            }
            _ => x,
        }
    }

    /// The norm of a network with a single layer: it is before that one, and leaves scale and bias to it.
    pub(super) fn norm_of_input(&mut self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        match self.norm {
            Place::After(layer) => self.append_before(name, &layer(x.size(1), false), x),
            _ => self.norm_before(name, x),
        }
    }

    /// A norm before the layer that comes next.
    fn append_before(&mut self, name: &str, norm: &impl Layer, x: Tensor<'g>) -> Tensor<'g> {
        let y = self.append(name, norm, x);
        self.normed = Some([x, y]);
        y
    }

    /// Keeps a layer that was appended.
    fn tap(
        &mut self,
        name: &str,
        x: Tensor<'g>,
        window: Option<Window>,
        (y, statistics): (Tensor<'g>, Option<Statistics<'g>>),
    ) -> Tensor<'g> {
        let given = self.normed.filter(|[_, normed]| *normed == x);
        self.taps.push(Tap {
            name: name.to_string(),
            given: given.map_or(x, |[given, _]| given),
            x,
            y,
            window,
            statistics,
        });
        y
    }

    /// A convolution, which deconvolves its input if that is the norm, and nothing else.
    pub(super) fn bare_conv(&mut self, name: &str, x: Tensor<'g>, conv: Conv) -> Tensor<'g> {
        let has_failed = x.graph().has_failed();
        let appended = self.append_conv(name, x, conv);
        if has_failed {
            return appended.0;
        }
        let window = Window {
            kernel_size: [conv.kernel_size; 2],
            stride: conv.stride,
            padding: conv.kernel_size / 2,
            dilation: 1,
        };
        self.tap(name, x, Some(window), appended)
    }

    fn append_conv(
        &self,
        name: &str,
        x: Tensor<'g>,
        conv: Conv,
    ) -> (Tensor<'g>, Option<Statistics<'g>>) {
        let Conv {
            out_channels,
            kernel_size,
            stride,
        } = conv;
        let in_channels = x.size(1);
        let deconv = self.model.deconv;
        if let Place::Inside = self.norm {
            // The first one sees raw pixels.
            let options = match self.taps.is_empty() {
                true => deconv.first_conv(),
                false => deconv.layer(),
            };
            let layer = DeconvConv2d::new(in_channels, out_channels, kernel_size)
                .stride(stride)
                .padding(kernel_size / 2)
                .options(options);
            let build = || layer.forward_with_statistics(x, self.mode);
            let (y, statistics) = x.graph().scope(name, build);
            return (y, Some(statistics));
        }
        let conventions = self.model.network.conventions;
        let layer = Conv2d::new(in_channels, out_channels, kernel_size)
            .stride(stride)
            .padding(kernel_size / 2)
            .bias(conventions.bias_before_batch_norm || !matches!(self.norm, Place::After(_)));
        let fan = match conventions.imagenet_init.fan {
            Fan::In => in_channels,
            Fan::Out => out_channels,
        };
        let std = (2.0 / (fan * kernel_size * kernel_size) as f32).sqrt();
        (
            self.append_with_init(name, &layer, x, Some(std), true),
            None,
        )
    }

    /// A linear layer that ends a network, or a part of it, and what the norm puts before it, called `norm`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        norm: &str,
        x: Tensor<'g>,
        out_features: usize,
    ) -> Tensor<'g> {
        let x = self.norm_before(norm, x);
        self.bare_linear(name, x, out_features, true)
    }

    /// A linear layer, and before or after it what the norm puts there, called `norm`.
    pub(super) fn hidden_linear(
        &mut self,
        name: &str,
        norm: &str,
        x: Tensor<'g>,
        out_features: usize,
    ) -> Tensor<'g> {
        let x = self.norm_before(norm, x);
        // The bias of the norm makes the layer's one idle.
        let has_bias = !matches!(self.norm, Place::After(_));
        let y = self.bare_linear(name, x, out_features, has_bias);
        self.norm_after(norm, y)
    }

    /// A linear layer, which deconvolves its input if that is the norm, and nothing else. Those of a convolutional network
    /// deconvolve 512 features together, in the ImageNet form a 32nd of all (paper section 4).
    pub(super) fn bare_linear(
        &mut self,
        name: &str,
        x: Tensor<'g>,
        out_features: usize,
        bias: bool,
    ) -> Tensor<'g> {
        let has_failed = x.graph().has_failed();
        let appended = self.append_linear(name, x, out_features, bias);
        if has_failed {
            return appended.0;
        }
        self.tap(name, x, None, appended)
    }

    fn append_linear(
        &self,
        name: &str,
        x: Tensor<'g>,
        out_features: usize,
        bias: bool,
    ) -> (Tensor<'g>, Option<Statistics<'g>>) {
        let in_features = x.size(1);
        if let Place::Inside = self.norm {
            let options = self.model.deconv.layer();
            let options = match (self.model.network.convolutional, self.form) {
                (false, _) => options,
                (true, Form::Cifar) => options.block(512),
                (true, Form::Imagenet) => options.block((in_features / 32).max(1)),
            };
            let layer = DeconvLinear::new(in_features, out_features).options(options);
            let build = || layer.forward_with_statistics(x, self.mode);
            let (y, statistics) = x.graph().scope(name, build);
            return (y, Some(statistics));
        }
        let layer = Linear {
            bias,
            ..Linear::new(in_features, out_features)
        };
        let init = self.model.network.conventions.imagenet_init;
        let y = self.append_with_init(name, &layer, x, init.linear_std, init.linear_bias_zero);
        (y, None)
    }

    /// A layer with other first values in the ImageNet form: weights with standard deviation `std`, biases 0.
    fn append_with_init(
        &self,
        name: &str,
        layer: &impl Layer,
        x: Tensor<'g>,
        std: Option<f32>,
        bias_zero: bool,
    ) -> Tensor<'g> {
        let first = x.graph().list().nodes().len();
        let y = self.append(name, layer, x);
        if self.form == Form::Imagenet {
            x.graph()
                .set_init(first, |name| match name.ends_with(".bias") {
                    true => bias_zero.then_some(Init::Constant(0.0)),
                    false => std.map(Init::Normal),
                });
        }
        y
    }

    /// Dropout with the probability of the model.
    pub(super) fn dropout(&self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        self.append(name, &Dropout::new(self.model.dropout), x)
    }

    /// Max pooling.
    pub(super) fn max_pool(&self, x: Tensor<'g>, pool: Pool2d) -> Tensor<'g> {
        self.refuse_small(x, pool);
        x.max_pool2d(pool)
    }

    /// Average pooling.
    pub(super) fn avg_pool(&self, x: Tensor<'g>, pool: Pool2d) -> Tensor<'g> {
        self.refuse_small(x, pool);
        x.avg_pool2d(pool)
    }

    /// Fails with an error that says what to do about images that this network cannot be given.
    pub(super) fn refuse(&self, x: Tensor<'g>, why: &str) {
        let [h, w] = self.image;
        let message = format!("the images of {h} x {w} pixels {why}");
        x.graph()
            .fail(Error::shape(self.model.network.name, message));
    }

    fn refuse_small(&self, x: Tensor<'g>, pool: Pool2d) {
        let [_, _, h, w] = x.dims();
        if h.min(w) < pool.kernel_size.saturating_sub(2 * pool.padding) {
            let why = "are too small for it: nothing is left of them to pool. Choose a smaller \
                       network (`model` cnn, or linear for any size) or larger images";
            self.refuse(x, why);
        }
    }
}

/// Means over pixels, [N, C].
pub(super) fn global_means(x: Tensor<'_>) -> Tensor<'_> {
    flatten(x.global_avg_pool())
}

/// [N, rest].
pub(super) fn flatten(x: Tensor<'_>) -> Tensor<'_> {
    Flatten.forward(x, Mode::Eval)
}

/// Windows of 2 x 2 that do not overlap.
pub(super) const HALVE: Pool2d = Pool2d::new(2);

#[cfg(test)]
mod tests {
    use crate::graph::Graph;
    use crate::models::{Model, Norm};
    use crate::nn::Mode;

    #[test]
    fn images_that_are_too_small_are_told_with_their_rows_and_columns() {
        let model = Model::new("vgg11", Norm::None, 10).unwrap();
        let g = Graph::new();
        model.forward(g.input("images", [2, 3, 8, 40]), Mode::Eval);
        let error = g.check().unwrap_err().to_string();
        for part in ["vgg11", "the images of 8 x 40 pixels are too small"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
    }

    /// 64 x .35 is 22.4, 128 x .35 is 44.8, 256 x .35 is 89.6, 512 x .35 is 179.2.
    #[test]
    fn widths_are_the_nearest_multiples_of_eight() {
        for (width, wanted) in [
            (0.35, [24, 48, 88, 88, 176, 176, 176, 176]),
            (0.001, [8; 8]),
            (1.0, [64, 128, 256, 256, 512, 512, 512, 512]),
        ] {
            let model = Model {
                width,
                ..Model::new("vgg11", Norm::None, 10).unwrap()
            };
            let g = Graph::new();
            model.forward(g.input("images", [2, 3, 32, 32]), Mode::Eval);
            g.check().unwrap();
            let weights = g.parameters().into_iter().map(|p| p.shape());
            let convs: Vec<usize> = weights
                .filter(|shape| shape.rank() == 4)
                .map(|shape| shape.dims()[0])
                .collect();
            assert_eq!(convs, wanted, "{width}");
        }
    }

    /// Nothing is built on them.
    #[test]
    fn images_of_another_rank_or_without_pixels_are_refused() {
        let model = Model::new("vgg11", Norm::None, 10).unwrap();
        for (shape, wanted) in [
            (vec![2, 3, 32], "images [2, 3, 32] are not [N, C, H, W]"),
            (vec![2, 3, 0, 32], "images [2, 3, 0, 32] have no pixels"),
        ] {
            let g = Graph::new();
            let x = g.input("images", shape);
            let (y, taps) = model.build(x, Mode::Eval);
            assert!(y == x && taps.is_empty(), "{y:?} {taps:?}");
            let text = g.check().unwrap_err().to_string();
            assert_eq!(text, format!("shape mismatch in vgg11: {wanted}"));
        }
    }

    /// Where there is such a convolution, it is the images that are wrong.
    #[test]
    fn a_convolution_that_small_images_do_not_reach_is_not_said_to_be_missing() {
        let model = Model::new("vgg11", Norm::None, 10).unwrap();
        let input = |n| {
            let g = Graph::new();
            let input = model.conv_input(g.input("images", [2, 3, 8, 8]), Mode::Eval, n);
            g.check().unwrap();
            input.map(|input| input.name)
        };
        let text = |n| input(n).unwrap_err().to_string();
        assert_eq!(input(6).unwrap(), "features.13");
        assert!(
            text(7).contains("the images of 8 x 8 pixels are too small"),
            "{}",
            text(7)
        );
        assert_eq!(
            text(9),
            "vgg11 has 8 convolutions; there is no convolution 9"
        );
    }
}
