//! Stochastic gradient descent with momentum, Nesterov's momentum and weight decay, as PyTorch's.

use super::kept;
use crate::graph::Tensor;

/// d = grad + `weight_decay` * w; v = `momentum` * v + d; w -= lr * v, or with `nesterov`
/// lr * (d + momentum * v). States: `NAME.momentum_buffer`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sgd {
    /// 0 keeps no buffer.
    pub momentum: f32,
    /// Factor of w added to its gradient.
    pub weight_decay: f32,
    /// Nesterov's momentum.
    pub nesterov: bool,
}

impl Sgd {
    /// How much of the buffer is kept each step, from 0 to below 1; 0, no buffer, at first.
    #[must_use]
    pub const fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Factor of w added to its gradient; 0 at first.
    #[must_use]
    pub const fn weight_decay(mut self, weight_decay: f32) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Nesterov's momentum; plain momentum at first.
    #[must_use]
    pub const fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }

    #[track_caller]
    pub(super) fn update<'g>(
        &self,
        parameters: &[Tensor<'g>],
        grads: &[Tensor<'g>],
        lr: Tensor<'g>,
    ) {
        for (&w, &grad) in parameters.iter().zip(grads) {
            let mut d = grad;
            if self.weight_decay != 0.0 {
                d = grad + w * self.weight_decay;
            }
            if self.momentum != 0.0 {
                // Starting at zero, the first v is d, as PyTorch has it.
                let v = kept(w, "momentum_buffer");
                let next = v * self.momentum + d;
                v.assign(next);
                d = match self.nesterov {
                    true => d + next * self.momentum,
                    false => next,
                };
            }
            w.assign(w - d * lr);
        }
    }
}
