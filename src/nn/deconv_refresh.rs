//! Steps between refreshes: D of an earlier step, brought to the batch at hand.
//!
//! D changes slowly in its directions and fast in its scale: a network that trains behind an old D
//! diverges, because the variances of its layers' inputs move away from those D was made for. So between two
//! refreshes the layer takes the mean of the batch and `D_t = D_0 diag(f)`, where f brings the input channels back
//! towards the variances they had when `D_0` was made:
//!
//! ```text
//! f_c = (v_0c / v_c)^(1/4) (v_0 / v)^(1/4)
//! ```
//!
//! `v_c` is the variance of channel c over the batch and all pixels, v its mean over the channels, both with eps
//! added, and `v_0c`, `v_0` the same at the refresh. That is the geometric mean of the channel's own factor
//! `sqrt(v_0c / v_c)` and of the layer's, `sqrt(v_0 / v)`. f and the mean are of this step and
//! differentiated, as in batch norm; `D_0` is a constant. diag(f) scales the folded weights, or the images, by input
//! channel, so that a step between refreshes costs two products (`W D_0` and its gradient) and two readings of x; and
//! the running D below, a reading of `D_0` and one of itself.
//!
//! The running D of evaluation follows in these steps too, with the same momentum as at a refresh: it moves towards
//! `diag(f)^(1/2) D_0 diag(f)^(1/2)`, which has the scale of today and is symmetric, as every D is. If it moved at refreshes
//! alone it would lag behind by several cycles, and evaluation in the middle of a training would suffer.

use crate::graph::{Graph, Init, Role, Tensor};

/// Names of the states of a layer's last refresh.
const DECONV: &str = "refresh_deconv";
const SCALE: &str = "refresh_scale";

/// Whether a state is of a layer's last refresh: a run that refreshes in every step has none.
pub(crate) fn is_of_refresh(state: &str) -> bool {
    let last = state.rsplit('.').next().unwrap_or(state);
    last == DECONV || last == SCALE
}

/// Moments of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchMoments<'g> {
    /// [1, C, ...]: the mean over the images, pixel by pixel.
    pub mean_image: Tensor<'g>,
    /// `[C]`: the variance of each channel over images and pixels.
    pub var: Tensor<'g>,
}

impl<'g> BatchMoments<'g> {
    /// Of `x` [N, C, ...].
    pub(super) fn new(x: Tensor<'g>) -> Self {
        let mut image = x.shape().dims().to_vec();
        image[0] = 1;
        let channels = image[1];
        let mut per_channel = vec![1; image.len()];
        per_channel[1] = channels;
        let mean_image = x.mean_to(image).over_ranks();
        // The mean inside the variance contributes nothing to its gradient.
        let mean = mean_image.mean_to(per_channel.clone()).detach();
        let var = (x - mean).square().mean_to(per_channel).over_ranks();
        Self {
            mean_image,
            var: var.reshape([channels]),
        }
    }
}

/// What a layer keeps of its last refresh: D, and `(v_0c v_0)^(1/4)` of its input channels, the numerators of
/// f. They are needed to go on from a checkpoint, and not for evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRefresh<'g> {
    pub deconv: Tensor<'g>,
    scale: Tensor<'g>,
}

impl<'g> LastRefresh<'g> {
    /// The states, under the current scope: `refresh_deconv` [groups, features, features] and
    /// `refresh_scale` `[channels]`.
    pub(super) fn new(g: &'g Graph, groups: usize, features: usize, channels: usize) -> Self {
        let deconv = [groups, features, features];
        Self {
            deconv: g.state(DECONV, deconv, Role::Optimizer, Init::Identity),
            scale: g.state(SCALE, [channels], Role::Optimizer, Init::Constant(1.0)),
        }
    }

    /// f, `[channels]`, for images of the variances `var`.
    pub(super) fn factors(&self, var: Tensor<'g>, eps: f32) -> Tensor<'g> {
        self.scale * squared_scale(var, eps).rsqrt()
    }

    /// Keeps `deconv` and the scale of this step's variances `var`.
    pub(super) fn update(&self, deconv: Tensor<'g>, var: Tensor<'g>, eps: f32) {
        self.deconv.assign(deconv);
        self.scale.assign(squared_scale(var, eps).sqrt());
    }
}

/// `diag(f)^(1/2) D diag(f)^(1/2)` of D [groups, features, features] and f [groups, features]: what the running D
/// moves towards between refreshes.
pub(super) fn scaled_on_both_sides<'g>(deconv: Tensor<'g>, factors: Tensor<'g>) -> Tensor<'g> {
    let [groups, features] = factors.dims();
    let root = factors.sqrt().reshape([groups, 1, features]);
    deconv * root.t_matmul(root)
}

/// `(v_c v)^(1/2)` of the variances `v_c`, `[C]`, with eps added: the square of `refresh_scale`.
fn squared_scale(var: Tensor<'_>, eps: f32) -> Tensor<'_> {
    let of_channel = var + eps;
    let of_layer = of_channel.mean_to([1]);
    (of_channel * of_layer).sqrt()
}
