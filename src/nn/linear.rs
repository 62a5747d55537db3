//! Linear layer.

use super::default_init;
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::ops::{Transpose, matmul_with};

/// y = x weight^T + bias. States: `weight` [out, in] and `bias` `[out]`.
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
        let shape = [self.out_features, self.in_features];
        let weight = g.parameter("weight", shape, init.clone())?;
        let bias = match self.bias {
            true => Some(g.parameter("bias", [self.out_features], init)?),
            false => None,
        };
        let by_rows = Transpose { a: false, b: true };
        matmul_with(g, x, weight, bias, by_rows, 1.0, 0.0)
    }
}
