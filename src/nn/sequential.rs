//! Layers one after the other.

use std::fmt;

use super::{Layer, Mode};
use crate::graph::Tensor;

/// Named layers, of which each is given what the one before gives. Names are scopes: the weight of a [`super::Linear`]
/// called `fc` is `fc.weight`, as in PyTorch.
///
/// ```
/// use decorr::nn::{DeconvConv2d, DeconvLinear, Flatten, MaxPool2d, Relu, Sequential};
///
/// let network = Sequential::new()
///     .add("conv1", DeconvConv2d::new(1, 16, 3).padding(1))
///     .add("relu1", Relu)
///     .add("pool1", MaxPool2d::new(2))
///     .add("flatten", Flatten)
///     .add("fc", DeconvLinear::new(16 * 14 * 14, 10));
/// ```
#[derive(Default)]
pub struct Sequential {
    layers: Vec<(String, Box<dyn Layer + Send + Sync>)>,
}

impl Sequential {
    /// No layer: gives what it is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `layer` behind those that are there. Each layer with parameters needs a name of its own: two of one name are an
    /// error of the graph.
    #[must_use]
    pub fn add(
        mut self,
        name: impl Into<String>,
        layer: impl Layer + Send + Sync + 'static,
    ) -> Self {
        self.layers.push((name.into(), Box::new(layer)));
        self
    }

    /// The names of the layers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|(name, _)| name.as_str())
    }
}

impl Layer for Sequential {
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        let g = x.graph();
        let layers = self.layers.iter();
        layers.fold(x, |x, (name, layer)| {
            g.scope(name, || layer.forward(x, mode))
        })
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
