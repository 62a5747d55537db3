//! Copies states that are read at the end of a step and assigned in it, so that both the host and
//! other states get the value from before the step, whatever the order of assignments.

use super::storage_roots;
use crate::Result;
use crate::graph::pointwise::Pointwise;
use crate::graph::{NodeList, Op, Tensor, TensorId};
use crate::shape::Shape;

/// The same tensor in memory of its own. Made by [`old_values`] only.
#[derive(Debug, PartialEq)]
struct Snapshot;

impl Op for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "gradients are built before passes";
        y.graph().fail(crate::Error::graph("snapshot", message));
        vec![]
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise::identity())
    }
}

/// `graph` with such copies. Not optional: without it results would be others.
///
/// # Errors
/// None but bugs.
pub(crate) fn old_values(graph: &NodeList) -> Result<NodeList> {
    let roots = storage_roots(graph);
    let is_assigned = |id: TensorId| {
        let root = roots[id.index()];
        graph.assigns().iter().any(|(s, _)| s.index() == root)
    };
    let mut new = graph.clone();
    new.replace_ends(|new, id| match is_assigned(id) {
        true => new.add(Snapshot, &[id]),
        false => Ok(id),
    })?;
    Ok(new)
}
