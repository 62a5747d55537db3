//! Adam (Kingma and Ba 2015) and `AdamW` (Loshchilov and Hutter 2019), as PyTorch's.

use crate::Result;
use crate::graph::{Graph, Init, Role, TensorId};
use crate::ops::{add, affine, div, exp, mul, scale, sqrt, square, sub};

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
    pub(super) fn update(
        &self,
        g: &mut Graph,
        parameters: &[TensorId],
        grads: &[TensorId],
        lr: TensorId,
    ) -> Result<()> {
        let step = g.state("adam.step", [1], Role::Optimizer, Init::Constant(0.0))?;
        let next_step = affine(g, step, 1.0, 1.0)?;
        g.assign(step, next_step)?;
        // 1 - beta^t, one number each.
        let mut corrections = [lr; 2];
        for (correction, beta) in corrections.iter_mut().zip(self.betas) {
            let exponent = scale(g, next_step, beta.ln())?;
            let power = exp(g, exponent)?;
            *correction = affine(g, power, -1.0, 1.0)?;
        }
        for (&w, &grad) in parameters.iter().zip(grads) {
            let mut step = grad;
            let mut base = w;
            if self.weight_decay != 0.0 {
                let decay = scale(g, w, self.weight_decay)?;
                if self.decoupled {
                    let decay = mul(g, decay, lr)?;
                    base = sub(g, w, decay)?;
                } else {
                    step = add(g, grad, decay)?;
                }
            }
            let (name, shape) = (g.node(w).name.clone(), g.shape(w).clone());
            let squared = square(g, step)?;
            let mut moments = [step, squared];
            for ((moment, beta), suffix) in moments
                .iter_mut()
                .zip(self.betas)
                .zip(["exp_avg", "exp_avg_sq"])
            {
                let state = g.state(
                    &format!("{name}.{suffix}"),
                    shape.clone(),
                    Role::Optimizer,
                    Init::Constant(0.0),
                )?;
                let kept = scale(g, state, beta)?;
                let added = scale(g, *moment, 1.0 - beta)?;
                let next = add(g, kept, added)?;
                g.assign(state, next)?;
                *moment = next;
            }
            let mean = div(g, moments[0], corrections[0])?;
            let variance = div(g, moments[1], corrections[1])?;
            let root = sqrt(g, variance)?;
            let divisor = affine(g, root, 1.0, self.eps)?;
            let direction = div(g, mean, divisor)?;
            let change = mul(g, direction, lr)?;
            let next = sub(g, base, change)?;
            g.assign(w, next)?;
        }
        Ok(())
    }
}
