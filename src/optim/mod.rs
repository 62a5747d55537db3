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
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam or `AdamW`.
    Adam(Adam),
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Self::Sgd(sgd)
    }
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Self {
        Self::Adam(adam)
    }
}

/// Names of the nodes that updates are made of begin with this; the name of the state that a node is
/// the next value of follows.
pub(crate) const UPDATE_SCOPE: &str = "update";

impl Optimizer {
    /// Appends the update of each of `parameters` (states) by its gradient. `lr`: one number.
    ///
    /// Fails with [`crate::Error::Shape`] if a gradient does not have its parameter's shape.
    #[track_caller]
    pub fn update<'g>(&self, parameters: &[Tensor<'g>], grads: &[Tensor<'g>], lr: Tensor<'g>) {
        let g = lr.graph();
        let (first, first_assign) = (g.list().nodes().len(), g.list().assigns().len());
        match self {
            Self::Sgd(sgd) => sgd.update(parameters, grads, lr),
            Self::Adam(adam) => adam.update(parameters, grads, lr),
        }
        let assigned = g.list().assigns()[first_assign..].to_vec();
        for (state, value) in assigned {
            g.tensor(value).named(&g.tensor(state).name());
        }
        g.move_into_scope(first, UPDATE_SCOPE);
    }
}

/// The optimiser's state `NAME.suffix` of the parameter `w` called NAME, from zeros.
#[track_caller]
fn kept<'g>(w: Tensor<'g>, suffix: &str) -> Tensor<'g> {
    let name = format!("{}.{suffix}", w.name());
    let init = Init::Constant(0.0);
    w.graph().state(&name, w.shape(), Role::Optimizer, init)
}
