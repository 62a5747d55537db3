//! Linear layer.

use super::{Layer, Mode, default_init};
use crate::graph::Tensor;
use crate::ops::Transpose;

/// Most bytes of a weight in one piece: what every adapter can bind.
const MAX_WEIGHT_BYTES: usize = 128 << 20;

/// y = x weight^T + bias. States: `weight` [out, in] and `bias` `[out]`.
///
/// A weight of more than 128 MiB (VGG's first on ImageNet) is kept in parts of some rows each: states
/// `weight.part0`, `weight.part1` and so on.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Inputs.
    pub in_features: usize,
    /// Outputs.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Linear {
    /// With a bias.
    #[must_use]
    pub const fn new(in_features: usize, out_features: usize) -> Self {
        Self {
            in_features,
            out_features,
            bias: true,
        }
    }

    /// Whether there is a bias; there is one at first.
    #[must_use]
    pub const fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// How many parts the weight is kept in.
    pub(super) fn parts(&self) -> usize {
        let bytes = self
            .in_features
            .saturating_mul(self.out_features)
            .saturating_mul(4);
        bytes.div_ceil(MAX_WEIGHT_BYTES).max(1)
    }
}

impl Layer for Linear {
    /// `x` [N, in] to [N, out].
    fn forward<'g>(&self, x: Tensor<'g>, _mode: Mode) -> Tensor<'g> {
        let (g, inputs, outputs) = (x.graph(), self.in_features, self.out_features);
        let init = default_init(inputs);
        let bias = match self.bias {
            true => Some(g.parameter("bias", [outputs], init.clone())),
            false => None,
        };
        let by_rows = Transpose { a: false, b: true };
        let parts = self.parts();
        if parts == 1 {
            let weight = g.parameter("weight", [outputs, inputs], init);
            return x.matmul_with(weight, bias, by_rows);
        }
        let most = outputs.div_ceil(parts);
        let mut results = Vec::new();
        for (k, first) in (0..outputs).step_by(most).enumerate() {
            let rows = most.min(outputs - first);
            let weight = g.parameter(&format!("weight{PART}{k}"), [rows, inputs], init.clone());
            let bias = bias.map(|bias| bias.slice(0, first, 1, rows));
            results.push(x.matmul_with(weight, bias, by_rows));
        }
        g.concat(&results, 1)
    }
}

/// Between the name of a weight and the number of its part.
const PART: &str = ".part";

/// The weight that the state `name` is a part of, and which; parts follow each other along the
/// first dimension. `None` for whole states.
pub(crate) fn part_of_weight(name: &str) -> Option<(&str, usize)> {
    let (weight, part) = name.rsplit_once(PART)?;
    Some((weight, part.parse().ok()?))
}
