//! Linear layer of deconvolved input: deconvolution with k = 1 over blocks of features.

use super::deconv::{self, DeconvOptions, Running, Side, Statistics, resolve_block};
use super::{Layer, Linear, Mode, weight_and_bias};
use crate::Error;
use crate::graph::Tensor;
use crate::ops::Transpose;
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
    /// Deconvolution.
    pub options: DeconvOptions,
}

impl DeconvLinear {
    /// With a bias, and the options of the paper's code for linear layers: its defaults with `block` 512.
    #[must_use]
    pub const fn new(in_features: usize, out_features: usize) -> Self {
        Self {
            in_features,
            out_features,
            bias: true,
            options: DeconvOptions::PAPER.block(512),
        }
    }

    /// Whether there is a bias; there is one at first.
    #[must_use]
    pub const fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// How the input is deconvolved.
    #[must_use]
    pub const fn options(mut self, options: DeconvOptions) -> Self {
        self.options = options;
        self
    }

    /// As [`Layer::forward`], with the statistics that were used.
    #[track_caller]
    pub fn forward_with_statistics<'g>(
        &self,
        x: Tensor<'g>,
        mode: Mode,
    ) -> (Tensor<'g>, Statistics<'g>) {
        let (g, inputs, outputs) = (x.graph(), self.in_features, self.out_features);
        let sizes = [
            ("in_features", inputs),
            ("out_features", outputs),
            ("block", self.options.block),
        ];
        deconv::refuse_zero(g, "deconv_linear", &sizes);
        let [batch, features] = x.dims();
        if features != inputs {
            let message = format!("{} does not have {inputs} features", x.shape());
            g.fail(Error::shape("deconv_linear", message));
        }
        if g.has_failed() {
            return (x, Statistics::none(x));
        }
        let block = resolve_block(self.options.block, inputs);
        let blocks = inputs / block;
        let running = Running::new(g, 1, block, true);
        let rows = |x: Tensor<'g>| x.reshape([x.len() / block, block]);
        let by_feature = |f: Tensor<'g>| f.reshape([blocks, block]).mean_to([1, block]);
        let statistics = deconv::statistics(mode, &running, &self.options, x, rows, by_feature);
        let layer = Linear {
            bias: self.bias,
            ..Linear::new(inputs, outputs)
        };
        if deconv::cheaper_side(batch, outputs) == Side::Patches || layer.parts() > 1 {
            let centred = x.reshape([1, batch * blocks, block]) - statistics.mean;
            let factors = column_factors(&statistics, batch, inputs);
            let centred = deconv::scale_columns(centred, factors);
            let white = deconv::times_deconv(centred, statistics.deconv);
            let y = layer.forward(white.reshape([batch, inputs]), mode);
            return (y, statistics);
        }
        let (weight, bias) = weight_and_bias(g, &[outputs, inputs], self.bias);
        let rows = weight.reshape([1, outputs * blocks, block]);
        let factors = column_factors(&statistics, outputs, inputs);
        let (weight_eff, shift) = deconv::fold(rows, &statistics, factors);
        let weight_eff = weight_eff.reshape([outputs, inputs]);
        let bias_eff = deconv::fold_bias(shift, outputs, bias);
        let by_rows = Transpose { a: false, b: true };
        let y = x.matmul_with(weight_eff, Some(bias_eff), by_rows);
        (y, statistics)
    }
}

impl Layer for DeconvLinear {
    /// `x` [N, in] to [N, out].
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        self.forward_with_statistics(x, mode).0
    }
}

/// The factors of the columns of D as they meet `rows` rows of all features.
fn column_factors<'g>(
    statistics: &Statistics<'g>,
    rows: usize,
    features: usize,
) -> Option<(Tensor<'g>, Shape)> {
    let factors = statistics.factors?.reshape([1, features]);
    Some((factors, [rows, features].into()))
}
