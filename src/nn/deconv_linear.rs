//! Linear layer of deconvolved input: deconvolution with k = 1 over blocks of features.

use super::deconv::{self, DeconvOptions, Running, Side, Statistics, resolve_block};
use super::{Linear, Mode, default_init};
use crate::Result;
use crate::graph::{Graph, TensorId};
use crate::ops::{Transpose, matmul_with, mean_to, reshape, sub};
use crate::shape::Shape;

/// y = x (weight D)^T + (bias - (weight D) mean); blocks of `block` neighbouring features share one
/// mean and one covariance. With fewer rows than outputs it is computed as ((x - mean) D) weight^T +
/// bias, which is the same and less work: D is multiplied by the smaller of x and weight (`cheaper_side`).
///
/// States: those of [`Linear`], `running_mean` `[block]`, `running_deconv` [block, block].
#[derive(Clone, Copy, Debug)]
pub struct DeconvLinear {
    /// Inputs.
    pub in_features: usize,
    /// Outputs.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Deconvolution; the paper's code has `block` 512 here.
    pub options: DeconvOptions,
}

impl DeconvLinear {
    /// With a bias.
    #[must_use]
    pub const fn new(in_features: usize, out_features: usize, options: DeconvOptions) -> Self {
        Self {
            in_features,
            out_features,
            bias: true,
            options,
        }
    }

    /// `x` [N, in] to [N, out].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        Ok(self.forward_with_statistics(g, x, mode)?.0)
    }

    /// As [`DeconvLinear::forward`], with the statistics that were used.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the sizes do not fit.
    pub fn forward_with_statistics(
        &self,
        g: &mut Graph,
        x: TensorId,
        mode: Mode,
    ) -> Result<(TensorId, Statistics)> {
        let (inputs, outputs) = (self.in_features, self.out_features);
        let sizes = [
            ("in_features", inputs),
            ("out_features", outputs),
            ("block", self.options.block),
        ];
        deconv::refuse_zero("deconv_linear", &sizes)?;
        let block = resolve_block(self.options.block, inputs);
        let blocks = inputs / block;
        let running = Running::new(g, 1, block, true)?;
        let batch = g.shape(x).dims().first().copied().unwrap_or(0);
        let statistics = deconv::statistics(
            g,
            mode,
            &running,
            &self.options,
            x,
            |g, x| {
                let rows = g.shape(x).len() / block;
                reshape(g, x, [rows, block])
            },
            |g, factors| {
                let by_block = reshape(g, factors, [blocks, block])?;
                mean_to(g, by_block, [1, block])
            },
        )?;
        let layer = Linear {
            bias: self.bias,
            ..Linear::new(inputs, outputs)
        };
        if deconv::cheaper_side(batch, outputs) == Side::Patches || layer.parts() > 1 {
            let rows = reshape(g, x, [1, batch * blocks, block])?;
            let centred = sub(g, rows, statistics.mean)?;
            let factors = column_factors(g, &statistics, batch, inputs)?;
            let centred = deconv::scale_columns(g, centred, factors)?;
            let white = deconv::times_deconv(g, centred, statistics.deconv)?;
            let white = reshape(g, white, [batch, inputs])?;
            return Ok((layer.forward(g, white)?, statistics));
        }
        let weight = g.parameter("weight", [outputs, inputs], default_init(inputs))?;
        let bias = match self.bias {
            true => Some(g.parameter("bias", [outputs], default_init(inputs))?),
            false => None,
        };
        let rows = reshape(g, weight, [1, outputs * blocks, block])?;
        let factors = column_factors(g, &statistics, outputs, inputs)?;
        let (weight_eff, shift) = deconv::fold(g, rows, &statistics, factors)?;
        let weight_eff = reshape(g, weight_eff, [outputs, inputs])?;
        let bias_eff = deconv::fold_bias(g, shift, outputs, bias)?;
        let by_rows = Transpose { a: false, b: true };
        let y = matmul_with(g, x, weight_eff, Some(bias_eff), by_rows)?;
        Ok((y, statistics))
    }
}

/// The factors of the columns of D as they meet `rows` rows of all features.
fn column_factors(
    g: &mut Graph,
    statistics: &Statistics,
    rows: usize,
    features: usize,
) -> Result<Option<(TensorId, Shape)>> {
    let Some(factors) = statistics.factors else {
        return Ok(None);
    };
    let factors = reshape(g, factors, [1, features])?;
    Ok(Some((factors, [rows, features].into())))
}
