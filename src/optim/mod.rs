//! Update rules as graph nodes, and schedules of the learning rate.

mod adam;
mod schedule;
mod sgd;

pub use adam::Adam;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::graph::{Init, Role, Tensor};

/// Which update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam or `AdamW`.
    Adam(Adam),
}

/// An update rule, made from an [`Sgd`] or [`Adam`], and what is done to gradients before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// Largest norm of all gradients together; larger ones are scaled down to it, as by PyTorch's `clip_grad_norm_`.
    pub clip_grad_norm: Option<f32>,
}

impl From<Rule> for Optimizer {
    fn from(rule: Rule) -> Self {
        Self {
            rule,
            clip_grad_norm: None,
        }
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Rule::Sgd(sgd).into()
    }
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Self {
        Rule::Adam(adam).into()
    }
}

/// Names of the nodes that updates are made of begin with this; the name of the state that a node is
/// the next value of follows.
pub(crate) const UPDATE_SCOPE: &str = "update";

impl Optimizer {
    /// Gradients whose norm, over all parameters, is larger than `max_norm` (above 0) are scaled down to it before the update
    /// and before weight decay is added.
    #[must_use]
    pub const fn clip_grad_norm(mut self, max_norm: f32) -> Self {
        self.clip_grad_norm = Some(max_norm);
        self
    }

    /// Appends the update of each of `parameters` (states) by its gradient. `lr`: one number.
    ///
    /// Fails with [`crate::Error::Shape`] if a gradient does not have its parameter's shape.
    #[track_caller]
    pub fn update<'g>(&self, parameters: &[Tensor<'g>], grads: &[Tensor<'g>], lr: Tensor<'g>) {
        let g = lr.graph();
        let (first, first_assign) = (g.list().nodes().len(), g.list().assigns().len());
        let clipped = self.clip_grad_norm.map(|max_norm| clipped(grads, max_norm));
        let grads = clipped.as_deref().unwrap_or(grads);
        match self.rule {
            Rule::Sgd(sgd) => sgd.update(parameters, grads, lr),
            Rule::Adam(adam) => adam.update(parameters, grads, lr),
        }
        let assigned = g.list().assigns()[first_assign..].to_vec();
        for (state, value) in assigned {
            g.tensor(value).named(&g.tensor(state).name());
        }
        g.move_into_scope(first, UPDATE_SCOPE);
    }
}

/// `grads` times min(1, `max_norm` / (norm + 1e-6)), as PyTorch has it, where norm is that of all their values together.
#[track_caller]
fn clipped<'g>(grads: &[Tensor<'g>], max_norm: f32) -> Vec<Tensor<'g>> {
    let squares = grads.iter().map(|grad| grad.square().sum_to([1]));
    let Some(sum) = squares.reduce(|a, b| a + b) else {
        return Vec::new();
    };
    // Divided by max(1, norm / max_norm): relu keeps a norm that is no number.
    let divisor = ((sum.sqrt() + 1e-6) * (1.0 / max_norm) - 1.0).relu() + 1.0;
    grads.iter().map(|&grad| grad / divisor).collect()
}

/// The optimiser's state `NAME.suffix` of the parameter `w` called NAME, from zeros.
#[track_caller]
fn kept<'g>(w: Tensor<'g>, suffix: &str) -> Tensor<'g> {
    let name = format!("{}.{suffix}", w.name());
    let init = Init::Constant(0.0);
    w.graph().state(&name, w.shape(), Role::Optimizer, init)
}
