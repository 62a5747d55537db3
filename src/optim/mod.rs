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
    match optimizer {
        Optimizer::Sgd(sgd) => sgd.update(g, parameters, grads, lr),
        Optimizer::Adam(adam) => adam.update(g, parameters, grads, lr),
    }
}
