//! Adam (Kingma and Ba 2015) and `AdamW` (Loshchilov and Hutter 2019), as PyTorch's.

use super::kept;
use crate::graph::{Init, Role, Tensor};

/// m and v are running means of the gradient and its square;
/// w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
/// States: `NAME.exp_avg`, `NAME.exp_avg_sq`, and one `adam.step`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// How much of the running means is kept each step.
    pub betas: [f32; 2],
    /// Added to the divisor.
    pub eps: f32,
    /// Factor of w added to its gradient, or taken from w itself if `decoupled`.
    pub weight_decay: f32,
    /// `AdamW`: w is first multiplied by 1 - lr * `weight_decay`.
    pub decoupled: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        }
    }
}

impl Adam {
    /// How much of the running means is kept each step, from 0 to below 1; 0.9 and 0.999 at first.
    #[must_use]
    pub const fn betas(mut self, betas: [f32; 2]) -> Self {
        self.betas = betas;
        self
    }

    /// Added to the divisor; 1e-8 at first.
    #[must_use]
    pub const fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Factor of w added to its gradient, or with [`Adam::decoupled`] taken from w itself; 0 at first.
    #[must_use]
    pub const fn weight_decay(mut self, weight_decay: f32) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// `AdamW`: w is first multiplied by 1 - lr * `weight_decay`; Adam at first.
    #[must_use]
    pub const fn decoupled(mut self, decoupled: bool) -> Self {
        self.decoupled = decoupled;
        self
    }

    #[track_caller]
    pub(super) fn update<'g>(
        &self,
        parameters: &[Tensor<'g>],
        grads: &[Tensor<'g>],
        lr: Tensor<'g>,
    ) {
        let init = Init::Constant(0.0);
        let step = lr.graph().state("adam.step", [1], Role::Optimizer, init);
        let t = step + 1.0;
        step.assign(t);
        // 1 - beta^t, one number each.
        let corrections = self.betas.map(|beta| 1.0 - (t * beta.ln()).exp());
        for (&w, &grad) in parameters.iter().zip(grads) {
            let (mut base, mut d) = (w, grad);
            if self.weight_decay != 0.0 {
                let decay = w * self.weight_decay;
                match self.decoupled {
                    true => base = w - decay * lr,
                    false => d = grad + decay,
                }
            }
            let squared = d.square();
            let m = running_mean(kept(w, "exp_avg"), d, self.betas[0]);
            let v = running_mean(kept(w, "exp_avg_sq"), squared, self.betas[1]);
            let (m, v) = (m / corrections[0], v / corrections[1]);
            w.assign(base - m / (v.sqrt() + self.eps) * lr);
        }
    }
}

/// The next value of the state `mean`: beta * mean + (1 - beta) * value.
#[track_caller]
fn running_mean<'g>(mean: Tensor<'g>, value: Tensor<'g>, beta: f32) -> Tensor<'g> {
    let next = mean * beta + value * (1.0 - beta);
    mean.assign(next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of PyTorch.
    #[test]
    fn defaults_are_torchs() {
        let adam = Adam::default();
        assert_eq!(
            (adam.betas, adam.eps, adam.weight_decay),
            ([0.9, 0.999], 1e-8, 0.0)
        );
    }
}
