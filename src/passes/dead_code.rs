//! Drops nodes that no output and no assignment needs.

use crate::Result;
use crate::graph::{Kind, NodeList};

/// `graph` without what nothing needs. Inputs stay: the host writes them by name.
///
/// # Errors
/// None but bugs.
pub fn dead_code(graph: &NodeList) -> Result<NodeList> {
    let mut needed = vec![false; graph.nodes().len()];
    for (state, value) in graph.assigns() {
        needed[state.index()] = true;
        needed[value.index()] = true;
    }
    for (_, id) in graph.outputs() {
        needed[id.index()] = true;
    }
    for (i, node) in graph.nodes().iter().enumerate().rev() {
        needed[i] |= matches!(node.kind, Kind::Input);
        if needed[i] {
            for input in &node.inputs {
                needed[input.index()] = true;
            }
        }
    }
    graph.rebuild(|new, id, node, remap| {
        if !needed[id.index()] {
            return Ok(None);
        }
        let inputs = remap.all(&node.inputs)?;
        Ok(Some(new.copy_node(node, inputs)))
    })
}
