//! Computes equal expressions once: the same op, attributes and inputs give the same tensor.

use std::collections::HashMap;

use crate::Result;
use crate::graph::{Kind, NodeList, TensorId};

/// `graph` with equal nodes merged. Ops are compared by their `Debug` text and output shape.
///
/// # Errors
/// None but bugs.
pub fn common_subexpr(graph: &NodeList) -> Result<NodeList> {
    let mut seen: HashMap<(String, Vec<TensorId>), TensorId> = HashMap::new();
    graph.rebuild(|new, _, node, remap| {
        let inputs = remap.all(&node.inputs)?;
        let Kind::Op(op) = &node.kind else {
            return Ok(Some(new.copy_node(node, inputs)));
        };
        let key = (format!("{op:?} {}", node.shape), inputs.clone());
        if let Some(&known) = seen.get(&key) {
            return Ok(Some(known));
        }
        let id = new.copy_node(node, inputs);
        seen.insert(key, id);
        Ok(Some(id))
    })
}
