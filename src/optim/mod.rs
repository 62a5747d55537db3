//! Update rules as graph nodes, and schedules of the learning rate.

mod adam;
mod schedule;
mod sgd;

pub use adam::Adam;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::Result;
use crate::graph::{Graph, TensorId};

/// Which update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam or `AdamW`.
    Adam(Adam),
}

/// Names of the nodes that updates are made of begin with this; the name of the state that a node is
/// the next value of follows.
pub const UPDATE_SCOPE: &str = "update";

/// Appends the update of each of `parameters` (states) by its gradient. `lr`: one number.
///
/// # Errors
/// [`crate::Error::Shape`] if a gradient does not have its parameter's shape.
pub fn update(
    g: &mut Graph,
    optimizer: &Optimizer,
    parameters: &[TensorId],
    grads: &[TensorId],
    lr: TensorId,
) -> Result<()> {
    let (first, first_assign) = (g.nodes().len(), g.assigns().len());
    match optimizer {
        Optimizer::Sgd(sgd) => sgd.update(g, parameters, grads, lr)?,
        Optimizer::Adam(adam) => adam.update(g, parameters, grads, lr)?,
    }
    let assigned = g.assigns()[first_assign..].to_vec();
    for (state, value) in assigned {
        let name = g.node(state).name.clone();
        g.rename(value, &name);
    }
    g.move_into_scope(first, UPDATE_SCOPE);
    Ok(())
}
