//! Stochastic gradient descent with momentum, Nesterov's momentum and weight decay, as PyTorch's.

use crate::Result;
use crate::graph::{Graph, Init, Role, TensorId};
use crate::ops::{add, mul, scale, sub};

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
    pub(super) fn update(
        &self,
        g: &mut Graph,
        parameters: &[TensorId],
        grads: &[TensorId],
        lr: TensorId,
    ) -> Result<()> {
        for (&w, &grad) in parameters.iter().zip(grads) {
            let mut step = grad;
            if self.weight_decay != 0.0 {
                let decay = scale(g, w, self.weight_decay)?;
                step = add(g, grad, decay)?;
            }
            if self.momentum != 0.0 {
                let (name, shape) = (g.node(w).name.clone(), g.shape(w).clone());
                // Starting at zero, the first v is d, as PyTorch has it.
                let v = g.state(
                    &format!("{name}.momentum_buffer"),
                    shape,
                    Role::Optimizer,
                    Init::Constant(0.0),
                )?;
                let kept = scale(g, v, self.momentum)?;
                let next = add(g, kept, step)?;
                g.assign(v, next)?;
                step = if self.nesterov {
                    let ahead = scale(g, next, self.momentum)?;
                    add(g, step, ahead)?
                } else {
                    next
                };
            }
            let step = mul(g, step, lr)?;
            let next = sub(g, w, step)?;
            g.assign(w, next)?;
        }
        Ok(())
    }
}
