//! Linear layer.

use super::default_init;
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::ops::{Transpose, concat, matmul_with, slice};

/// Most bytes of a weight in one piece: what every adapter can bind.
const MAX_WEIGHT_BYTES: usize = 128 << 20;

/// y = x weight^T + bias. States: `weight` [out, in] and `bias` `[out]`.
///
/// A weight of more than 128 MiB (VGG's first on ImageNet) is kept in parts of some rows each, see
/// [`part_of_weight`].
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

    /// `x` [N, in] to [N, out].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward(&self, g: &mut Graph, x: TensorId) -> Result<TensorId> {
        let init = default_init(self.in_features);
        let bias = match self.bias {
            true => Some(g.parameter("bias", [self.out_features], init.clone())?),
            false => None,
        };
        let by_rows = Transpose { a: false, b: true };
        let parts = self.parts();
        if parts == 1 {
            let shape = [self.out_features, self.in_features];
            let weight = g.parameter("weight", shape, init)?;
            return matmul_with(g, x, weight, bias, by_rows);
        }
        let most = self.out_features.div_ceil(parts);
        let mut outputs = Vec::new();
        for (k, first) in (0..self.out_features).step_by(most).enumerate() {
            let rows = most.min(self.out_features - first);
            let name = format!("weight{PART}{k}");
            let weight = g.parameter(&name, [rows, self.in_features], init.clone())?;
            let bias = match bias {
                Some(bias) => Some(slice(g, bias, 0, first, 1, rows)?),
                None => None,
            };
            outputs.push(matmul_with(g, x, weight, bias, by_rows)?);
        }
        concat(g, &outputs, 1)
    }
}

impl Linear {
    /// How many parts the weight is kept in.
    pub(super) fn parts(&self) -> usize {
        let bytes = self
            .in_features
            .saturating_mul(self.out_features)
            .saturating_mul(4);
        bytes.div_ceil(MAX_WEIGHT_BYTES).max(1)
    }
}

/// Between the name of a weight and the number of its part.
const PART: &str = ".part";

/// The weight that the state `name` is a part of, and which; parts follow each other along the
/// first dimension. `None` for whole states.
pub fn part_of_weight(name: &str) -> Option<(&str, usize)> {
    let (weight, part) = name.rsplit_once(PART)?;
    Some((weight, part.parse().ok()?))
}
