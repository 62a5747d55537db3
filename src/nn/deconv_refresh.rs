//! Steps between refreshes: D of an earlier step, brought to the batch at hand.
//!
//! D changes slowly in its directions and fast in its scale: a network that trains behind an old D
//! diverges, because the variances of its layers' inputs move away from those D was made for. So between two
//! refreshes the layer takes `D_t = D_0 diag(f)`, where f brings the input channels back to the variances
//! they had when `D_0` was made, and the mean of the batch:
//!
//! ```text
//! f_c = (v_0c / v_c)^(1/4) (v_0 / v)^(1/4)
//! ```
//!
//! `v_c` is the variance of channel c over the batch and all pixels, v its mean over the channels, both with eps
//! added, and `v_0c`, `v_0` the same at the refresh. That is the geometric mean of the channel's own factor
//! `sqrt(v_0c / v_c)` and of the layer's, `sqrt(v_0 / v)`. f and the mean are of this step and
//! differentiated, as in batch norm; `D_0` is a constant. diag(f) scales the folded weights, or the images, by input
//! channel, so that a step between refreshes costs two products (`W D_0` and its gradient) and two readings of x.
//!
//! The running D of evaluation follows in these steps too, with the same momentum as at a refresh: it moves towards
//! `diag(f)^(1/2) D_0 diag(f)^(1/2)`, which has the scale of today and is symmetric, as every D is. If it moved at refreshes
//! alone it would lag behind by several cycles, and evaluation in the middle of a training would suffer.

use super::deconv::Statistics;
use crate::Result;
use crate::graph::{Graph, Init, Role, TensorId};
use crate::ops::{
    Transpose, affine, detach, matmul, mean_to, mul, reshape, rsqrt, sqrt, square, sub,
};

/// Moments of the batch over images, [1, C, ...], and of each channel, `[C]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchMoments {
    /// The mean over the images, pixel by pixel.
    mean_image: TensorId,
    /// The variance of each channel over images and pixels.
    var: TensorId,
}

impl BatchMoments {
    /// Of `x` [N, C, ...].
    pub(super) fn new(g: &mut Graph, x: TensorId) -> Result<Self> {
        let mut image = g.shape(x).dims().to_vec();
        image[0] = 1;
        let channels = image[1];
        let mut per_channel = vec![1; image.len()];
        per_channel[1] = channels;
        let mean_image = mean_to(g, x, image)?;
        let mean = mean_to(g, mean_image, per_channel.clone())?;
        // The mean inside the variance contributes nothing to its gradient.
        let mean = detach(g, mean)?;
        let centred = sub(g, x, mean)?;
        let squared = square(g, centred)?;
        let var = mean_to(g, squared, per_channel)?;
        Ok(Self {
            mean_image,
            var: reshape(g, var, [channels])?,
        })
    }
}

/// What a layer keeps of its last refresh: D, and `(v_0c v_0)^(1/4)` of its input channels, to which
/// f brings them back. They are needed to go on from a checkpoint, and not for evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRefresh {
    deconv: TensorId,
    scale: TensorId,
}

impl LastRefresh {
    /// The states, under the current scope: `refresh_deconv` [groups, features, features] and
    /// `refresh_scale` `[channels]`.
    pub(super) fn new(
        g: &mut Graph,
        groups: usize,
        features: usize,
        channels: usize,
    ) -> Result<Self> {
        let deconv = [groups, features, features];
        Ok(Self {
            deconv: g.state("refresh_deconv", deconv, Role::Optimizer, Init::Identity)?,
            scale: g.state(
                "refresh_scale",
                [channels],
                Role::Optimizer,
                Init::Constant(1.0),
            )?,
        })
    }

    /// D of the last refresh with this batch's mean and scale.
    pub(super) fn statistics(
        &self,
        g: &mut Graph,
        batch: &BatchMoments,
        eps: f32,
        rows: impl Fn(&mut Graph, TensorId) -> Result<TensorId>,
    ) -> Result<Statistics> {
        let &[groups, features, _] = g.shape(self.deconv).dims() else {
            return Err(crate::Error::shape(
                "deconv",
                "refresh_deconv has no groups: a bug",
            ));
        };
        // Patches are linear in the image: the mean patch is a patch of the mean image.
        let rows = rows(g, batch.mean_image)?;
        let mean = mean_to(g, rows, [1, groups * features])?;
        Ok(Statistics {
            mean: reshape(g, mean, [groups, 1, features])?,
            cov: None,
            deconv: self.deconv,
            scale: Some(self.scale(g, batch.var, eps)?),
        })
    }

    /// f, `[channels]`.
    fn scale(&self, g: &mut Graph, var: TensorId, eps: f32) -> Result<TensorId> {
        let root = square_root_of_scale(g, var, eps)?;
        let inverse = rsqrt(g, root)?;
        mul(g, self.scale, inverse)
    }

    /// Keeps D and the scale of this step.
    pub(super) fn update(
        &self,
        g: &mut Graph,
        deconv: TensorId,
        batch: &BatchMoments,
        eps: f32,
    ) -> Result<()> {
        g.assign(self.deconv, deconv)?;
        let root = square_root_of_scale(g, batch.var, eps)?;
        let scale = sqrt(g, root)?;
        g.assign(self.scale, scale)
    }
}

/// `diag(f)^(1/2) D diag(f)^(1/2)` of D [groups, features, features] and f [groups, features]: what the running D
/// moves towards between refreshes.
pub(super) fn scaled_on_both_sides(
    g: &mut Graph,
    deconv: TensorId,
    factors: TensorId,
) -> Result<TensorId> {
    let mut shape = g.shape(factors).dims().to_vec();
    shape.insert(1, 1);
    let root = sqrt(g, factors)?;
    let root = reshape(g, root, shape)?;
    let by_columns = Transpose { a: true, b: false };
    let of_both = matmul(g, root, root, by_columns)?;
    mul(g, deconv, of_both)
}

/// `(v_c v)^(1/2)` of the variances `v_c`, `[C]`, with eps: the square of what a channel is brought to.
fn square_root_of_scale(g: &mut Graph, var: TensorId, eps: f32) -> Result<TensorId> {
    let of_channel = affine(g, var, 1.0, eps)?;
    let of_layer = mean_to(g, of_channel, [1])?;
    let both = mul(g, of_channel, of_layer)?;
    sqrt(g, both)
}
